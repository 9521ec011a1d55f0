"""A small server that answers as TensorFlow Serving does, to test with and to start with; large sites run Google's.

It knows nothing of scans: any SavedModel will do. `serve.serve` runs it; it needs `pip install 'pimms-tf[serving]'`.
"""
