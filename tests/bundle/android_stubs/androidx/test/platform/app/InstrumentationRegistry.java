package androidx.test.platform.app;

import android.content.Context;
import java.io.File;

/** The test's own assets lie in one folder, the app's in another. */
public final class InstrumentationRegistry {
  public static final class Instrumentation {
    public Context getContext() {
      return new Context(new File(System.getProperty("testAssets")));
    }

    public Context getTargetContext() {
      return new Context(new File(System.getProperty("appAssets")));
    }
  }

  public static Instrumentation getInstrumentation() {
    return new Instrumentation();
  }
}
