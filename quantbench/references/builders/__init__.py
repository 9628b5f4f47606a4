"""One file for each kind of model that ships as bare weights; its `build` makes the ONNX graphs."""
