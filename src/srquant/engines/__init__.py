"""What a quantized network runs on besides PyTorch's float32: exact integers, ONNX files and the engines for them.

Nothing here is imported to open or to quantize a model.
"""
