// Written by edgeprune: runs the model on the device and compares it with what it computed when it was exported.
package {{ package }}

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Test
import org.junit.runner.RunWith

/** Reads `golden.bin`, whose layout is that of `golden.json`. */
@RunWith(AndroidJUnit4::class)
class {{ class_name }}Test {
    @Test
    fun computesTheGoldenOutputs() {
        val instrumentation = InstrumentationRegistry.getInstrumentation()
        val bytes = instrumentation.context.assets.open("{{ identifier }}/golden.bin").use { it.readBytes() }
        val golden = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
        {{ class_name }}.fromAssets(instrumentation.targetContext).use { model ->
            for (sample in 0 until {{ count }}) {
{% for port in inputs %}
                val input{{ port.index }} = {{ port.array }}({{ port.elements }}) { {{ port.golden }} }
{% endfor %}
                val output = model.run({% for port in inputs %}input{{ port.index }}{{ "" if loop.last else ", " }}{% endfor %})
{% for port in outputs %}
                for (i in 0 until {{ port.elements }}) {
                    val expected = {{ port.golden }}
{% if port.array == "FloatArray" %}
                    assertEquals("sample $sample, {{ port.identifier }}[$i]", expected, output.{{ port.identifier }}[i], {{ port.tolerance }})
{% else %}
                    assertEquals("sample $sample, {{ port.identifier }}[$i]", expected, output.{{ port.identifier }}[i])
{% endif %}
                }
{% endfor %}
            }
        }
        assertFalse("golden.bin holds more than the model takes", golden.hasRemaining())
    }
}
