package com.google.ai.edge.litert

import android.content.res.AssetManager
import java.nio.ByteBuffer
import java.nio.ByteOrder
import stub.Replay

enum class Accelerator { CPU, GPU, NPU }

class Environment

/** Stands in for LiteRT's class of the GPU: it gives the outputs that LiteRT gave in Python for the same bytes. */
class CompiledModel private constructor() : AutoCloseable {
    class Options(vararg val accelerators: Accelerator)

    fun createInputBuffer(inputName: String, signature: String = ""): TensorBuffer = TensorBuffer(inputName)

    fun createOutputBuffer(outputName: String, signature: String = ""): TensorBuffer = TensorBuffer(outputName)

    fun run(inputs: Map<String, TensorBuffer>, outputs: Map<String, TensorBuffer>, signature: String = "") {
        val sizes = System.getProperty("outputBytes").split(",").map { it.toInt() }.toIntArray()
        val answers = Replay.answer(inputs.map { (name, buffer) -> check(name == buffer.name).let { buffer.bytes } }, sizes)
        outputs.values.forEachIndexed { index, buffer -> buffer.bytes = answers[index] }
    }

    override fun close() = Unit

    companion object {
        fun create(
            assetManager: AssetManager,
            assetName: String,
            options: Options = Options(Accelerator.CPU),
            optionalEnv: Environment? = null,
        ): CompiledModel {
            assetManager.openFd(assetName).close()
            check(options.accelerators.toList() == listOf(Accelerator.GPU))
            return CompiledModel()
        }
    }
}

class TensorBuffer internal constructor(val name: String) : AutoCloseable {
    internal var bytes = ByteArray(0)

    fun writeFloat(data: FloatArray) = write(data.size * 4) { buffer -> data.forEach { buffer.putFloat(it) } }

    fun writeInt(data: IntArray) = write(data.size * 4) { buffer -> data.forEach { buffer.putInt(it) } }

    fun readFloat(): FloatArray = read().let { buffer -> FloatArray(bytes.size / 4) { buffer.getFloat() } }

    fun readInt(): IntArray = read().let { buffer -> IntArray(bytes.size / 4) { buffer.getInt() } }

    override fun close() = Unit

    private fun write(size: Int, fill: (ByteBuffer) -> Unit) {
        val buffer = ByteBuffer.allocate(size).order(ByteOrder.nativeOrder())
        fill(buffer)
        bytes = buffer.array()
    }

    private fun read(): ByteBuffer = ByteBuffer.wrap(bytes).order(ByteOrder.nativeOrder())
}
