package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import stub.Replay;

/** Stands in for LiteRT's class: it gives the outputs that LiteRT gave in Python for the same bytes. */
public final class Interpreter implements AutoCloseable {
  public static class Options {
    public Options setNumThreads(int threads) {
      return this;
    }
  }

  public Interpreter(ByteBuffer model, Options options) {
    if (!model.isDirect() || !new String(new byte[] {model.get(4), model.get(5)}).equals("TF")) {
      throw new IllegalArgumentException("not a model in a direct buffer");
    }
  }

  public void resetVariableTensors() {
    Replay.resets++;
  }

  public void runForMultipleInputsOutputs(Object[] inputs, Map<Integer, Object> outputs) {
    List<byte[]> given = new ArrayList<>();
    for (Object input : inputs) {
      given.add(taken(checked(input)));
    }
    int[] sizes = new int[outputs.size()];
    Map<Integer, Object> ordered = new TreeMap<>(outputs);
    ordered.forEach((index, output) -> sizes[index] = checked(output).remaining());
    List<byte[]> answers = Replay.answer(given, sizes);
    ordered.forEach((index, output) -> ((ByteBuffer) output).put(answers.get(index)));
  }

  @Override
  public void close() {}

  private static ByteBuffer checked(Object buffer) {
    ByteBuffer bytes = (ByteBuffer) buffer;
    if (!bytes.isDirect() || bytes.order() != ByteOrder.nativeOrder() || bytes.position() != 0) {
      throw new IllegalArgumentException("a buffer must be direct, in native order and rewound");
    }
    return bytes;
  }

  private static byte[] taken(ByteBuffer buffer) {
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(bytes);
    return bytes;
  }
}
