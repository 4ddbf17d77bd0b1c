"""The programs behind utils/bundle, embed, verify, enrol, identify and export_onnx: using a trained system."""
