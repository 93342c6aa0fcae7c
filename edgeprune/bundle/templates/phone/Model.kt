// Written by edgeprune for version {{ version | c_comment }} of the model in this bundle. Change the package as you like.
package {{ package }}

import android.content.Context
{% if gpu %}
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
{% else %}
import java.io.File
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.MappedByteBuffer
import java.nio.channels.FileChannel
import org.tensorflow.lite.Interpreter
{% endif %}

/**
 * {{ name | c_comment }}
{% if description %}
 *
 * {{ description | c_comment }}
{% endif %}
 *
 * Arrays hold one sample, row by row, the last axis running fastest. What is generated here normalises, quantizes and
 * de-quantizes as the model needs it.
 *
{% if gpu %}
 * @param compiled the model, compiled for the GPU: use [fromAssets].
{% else %}
 * @param model the file's bytes in a direct buffer: use [fromAssets] or [fromFile].
 * @param threads how many CPU threads may run it.
{% endif %}
 */
{% if gpu %}
class {{ class_name }}(private val compiled: CompiledModel) : AutoCloseable {
{% for port in inputs %}
    private val input{{ port.index }} = compiled.createInputBuffer({{ port.name }})
{% endfor %}
{% for port in outputs %}
    private val output{{ port.index }} = compiled.createOutputBuffer({{ port.name }})
{% endfor %}
{% else %}
class {{ class_name }}(model: ByteBuffer, threads: Int = 2) : AutoCloseable {
    private val interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads))
{% for port in inputs %}
    private val input{{ port.index }} = direct({{ port.bytes }})
{% endfor %}
{% for port in outputs %}
    private val output{{ port.index }} = direct({{ port.bytes }})
{% endfor %}
{% endif %}

    /** What one run gives. */
    class Output(
{% for port in outputs %}
        /** {{ port.doc | c_comment }} */
        val {{ port.identifier }}: {{ port.array }},
{% endfor %}
    )

    /**
     * Run the model once.
     *
{% for port in inputs %}
     * @param {{ port.identifier }} {{ port.doc | c_comment }}
{% endfor %}
     */
    @Synchronized
    fun run({% for port in inputs %}{{ port.identifier }}: {{ port.array }}{{ "" if loop.last else ", " }}{% endfor %}): Output {
{% for port in inputs %}
        encode{{ port.index }}({{ port.identifier }})
{% endfor %}
{% if gpu %}
        this.compiled.run(
            mapOf({% for port in inputs %}{{ port.name }} to this.input{{ port.index }}{{ "" if loop.last else ", " }}{% endfor %}),
            mapOf({% for port in outputs %}{{ port.name }} to this.output{{ port.index }}{{ "" if loop.last else ", " }}{% endfor %}),
        )
{% else %}
{% for port in outputs %}
        this.output{{ port.index }}.rewind()
{% endfor %}
{% if stateful %}
        this.interpreter.resetVariableTensors()
{% endif %}
        this.interpreter.runForMultipleInputsOutputs(
            arrayOf<Any>({% for port in inputs %}this.input{{ port.index }}{{ "" if loop.last else ", " }}{% endfor %}),
            mapOf<Int, Any>({% for port in outputs %}{{ port.index }} to this.output{{ port.index }}{{ "" if loop.last else ", " }}{% endfor %}),
        )
{% endif %}
        return Output({% for port in outputs %}decode{{ port.index }}(){{ "" if loop.last else ", " }}{% endfor %})
    }

    override fun close() {
{% if gpu %}
{% for port in inputs %}
        input{{ port.index }}.close()
{% endfor %}
{% for port in outputs %}
        output{{ port.index }}.close()
{% endfor %}
        compiled.close()
{% else %}
        interpreter.close()
{% endif %}
    }

{% for port in inputs %}
    private fun encode{{ port.index }}(values: {{ port.array }}) {
        require(values.size == {{ port.elements }}) { {{ port.size_error }} + values.size }
{% if gpu %}
{% if port.mean %}
        val normalised = FloatArray(values.size) { ((values[it].toDouble() - MEAN{{ port.index }}[it % {{ port.mean | length }}]) / STD{{ port.index }}[it % {{ port.mean | length }}]).toFloat() }
        input{{ port.index }}.{{ port.write }}(normalised)
{% else %}
        input{{ port.index }}.{{ port.write }}(values)
{% endif %}
{% else %}
        input{{ port.index }}.rewind()
{% if port.mean %}
        for (i in values.indices) {
            val value = ((values[i].toDouble() - MEAN{{ port.index }}[i % {{ port.mean | length }}]) / STD{{ port.index }}[i % {{ port.mean | length }}]).toFloat()
            input{{ port.index }}.{{ port.encode }}
        }
{% else %}
        for (value in values) input{{ port.index }}.{{ port.encode }}
{% endif %}
        input{{ port.index }}.rewind()
{% endif %}
    }

{% endfor %}
{% for port in outputs %}
{% if gpu %}
    private fun decode{{ port.index }}() = output{{ port.index }}.{{ port.read }}()
{% else %}
    private fun decode{{ port.index }}(): {{ port.array }} {
        output{{ port.index }}.rewind()
        return {{ port.array }}({{ port.elements }}) { {{ port.decode }} }
    }
{% endif %}

{% endfor %}
    companion object {
        /** Where the app keeps the model among its assets. */
        const val ASSET = "{{ identifier }}/model.tflite"

{% if labels %}
        /** The classes' names. */
        val LABELS: List<String> = {% for part in label_parts %}labels{{ loop.index0 }}(){{ "" if loop.last else " + " }}{% endfor %}


{% endif %}
{% for port in inputs if port.mean %}
        private val MEAN{{ port.index }} = doubleArrayOf({{ port.mean | join(", ") }})
        private val STD{{ port.index }} = doubleArrayOf({{ port.std | join(", ") }})
{% endfor %}

{% if gpu %}
        /** Open the model that lies among the app's assets and compile it for the GPU. */
        fun fromAssets(context: Context): {{ class_name }} =
            {{ class_name }}(CompiledModel.create(context.assets, ASSET, CompiledModel.Options(Accelerator.GPU)))
{% else %}
        /** Open the model that lies among the app's assets. It must not be compressed: see `dependencies.gradle.kts`. */
        fun fromAssets(context: Context, threads: Int = 2): {{ class_name }} =
            context.assets.openFd(ASSET).use { asset ->
                FileInputStream(asset.fileDescriptor).use {
                    {{ class_name }}(map(it, asset.startOffset, asset.declaredLength), threads)
                }
            }

        /** Open a model in a file of its own. */
        fun fromFile(file: File, threads: Int = 2): {{ class_name }} =
            FileInputStream(file).use { {{ class_name }}(map(it, 0, file.length()), threads) }

        private fun map(file: FileInputStream, start: Long, length: Long): MappedByteBuffer =
            file.channel.map(FileChannel.MapMode.READ_ONLY, start, length)

        private fun direct(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

        private fun quantize(value: Float, scale: Float, zeroPoint: Int, least: Double, most: Double): Int =
            (Math.rint((value / scale).toDouble()) + zeroPoint).coerceIn(least, most).toInt()
{% endif %}
{% if argb %}

        /**
         * The {{ argb.channels_doc }} of an image as the model's input takes them, 0 to 255.
         *
         * @param pixels {{ argb.height }} rows of {{ argb.width }} pixels, as `Bitmap.getPixels` gives them.
         */
        fun fromArgb(pixels: IntArray): FloatArray {
            require(pixels.size == {{ argb.height * argb.width }}) { "an image has {{ argb.width }} x {{ argb.height }} pixels, got " + pixels.size }
{% if argb.channels == 3 %}
            return FloatArray(pixels.size * 3) { ((pixels[it / 3] shr (16 - 8 * (it % 3))) and 0xFF).toFloat() }
{% else %}
            return FloatArray(pixels.size) {
                val pixel = pixels[it]
                val red = (pixel shr 16) and 0xFF
                val green = (pixel shr 8) and 0xFF
                0.299f * red + 0.587f * green + 0.114f * (pixel and 0xFF)
            }
{% endif %}
        }
{% endif %}
{% if labelled %}

        /**
         * The most likely classes, the best first.
         *
         * @param scores [Output.{{ labelled }}] of a run.
         */
        fun top(scores: FloatArray, count: Int = 3): List<Pair<String, Float>> =
            scores.indices.sortedByDescending { scores[it] }.take(count).map { LABELS[it] to scores[it] }
{% endif %}
{% for part in label_parts %}

        private fun labels{{ loop.index0 }}() = listOf(
{% for label in part %}
            {{ label }},
{% endfor %}
        )
{% endfor %}
    }
}
