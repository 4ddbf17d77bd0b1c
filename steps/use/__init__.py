"""The programs behind utils/bundle, embed, verify, enrol, identify, export_onnx, import_checkpoint."""
