"""What a trial is, and how one is made: a smaller model judged without training, or trained, written and measured."""
