package stub;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import org.junit.Test;

/** Runs the tests of the class that is named. */
public final class RunTests {
  public static void main(String[] arguments) throws Throwable {
    Class<?> tests = Class.forName(arguments[0]);
    int count = 0;
    for (Method method : tests.getMethods()) {
      if (method.isAnnotationPresent(Test.class)) {
        try {
          method.invoke(tests.getConstructor().newInstance());
        } catch (InvocationTargetException error) {
          throw error.getCause();
        }
        count++;
      }
    }
    System.out.println("tests " + count + ", runs " + Replay.runs + ", resets " + Replay.resets);
  }
}
