package android.content.res;

import java.io.Closeable;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.IOException;

public class AssetFileDescriptor implements Closeable {
  private final FileInputStream file;
  private final long length;

  AssetFileDescriptor(File path) throws IOException {
    file = new FileInputStream(path);
    length = path.length();
  }

  public FileDescriptor getFileDescriptor() {
    try {
      return file.getFD();
    } catch (IOException error) {
      throw new IllegalStateException(error);
    }
  }

  public long getStartOffset() {
    return 0;
  }

  public long getDeclaredLength() {
    return length;
  }

  @Override
  public void close() throws IOException {
    file.close();
  }
}
