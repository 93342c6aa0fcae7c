from tensorflow_model_optimization.sparsity import keras as keras
