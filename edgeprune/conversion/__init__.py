"""From a Keras model to the bytes of a .tflite file: what is traced, how the converter is asked. `export` proves it."""
