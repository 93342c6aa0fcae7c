package stub;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** What LiteRT computed in Python: the bytes of all inputs, then of all outputs, one sample after the other. */
public final class Replay {
  public static int resets = 0;
  public static int runs = 0;

  public static List<byte[]> answer(List<byte[]> inputs, int[] outputSizes) {
    byte[] given = joined(inputs);
    int outputs = Arrays.stream(outputSizes).sum();
    byte[] record;
    try {
      record = Files.readAllBytes(Path.of(System.getProperty("replay")));
    } catch (java.io.IOException error) {
      throw new IllegalStateException(error);
    }
    for (int at = 0; at < record.length; at += given.length + outputs) {
      if (Arrays.equals(given, Arrays.copyOfRange(record, at, at + given.length))) {
        runs++;
        List<byte[]> answers = new ArrayList<>();
        int place = at + given.length;
        for (int size : outputSizes) {
          answers.add(Arrays.copyOfRange(record, place, place + size));
          place += size;
        }
        return answers;
      }
    }
    throw new AssertionError("these input bytes are none that the model was run on in Python");
  }

  private static byte[] joined(List<byte[]> parts) {
    byte[] all = new byte[parts.stream().mapToInt(part -> part.length).sum()];
    int at = 0;
    for (byte[] part : parts) {
      System.arraycopy(part, 0, all, at, part.length);
      at += part.length;
    }
    return all;
  }
}
