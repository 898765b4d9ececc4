"""Run the program as ``python -m onnx_inspect``."""

from onnx_inspect.cli.app import main

if __name__ == "__main__":
    main()
