package org.junit;

import java.util.Objects;

public class Assert {
  public static void assertEquals(String message, float expected, float actual, float delta) {
    if (!(Math.abs(expected - actual) <= delta)) {
      throw new AssertionError(message + ": expected " + expected + ", got " + actual);
    }
  }

  public static void assertEquals(String message, Object expected, Object actual) {
    if (!Objects.equals(expected, actual)) {
      throw new AssertionError(message + ": expected " + expected + ", got " + actual);
    }
  }

  public static void assertEquals(String message, long expected, long actual) {
    assertEquals(message, (Object) expected, (Object) actual);
  }

  public static void assertFalse(String message, boolean condition) {
    if (condition) {
      throw new AssertionError(message);
    }
  }
}
