"""How TensorFlow Serving may join waiting requests to one. No TensorFlow here."""

BATCHING_NAME = "batching_params.pbtxt"
BATCHING_FLAGS = "--enable_batching --enable_per_model_batching_parameters"

# In the text form of TensorFlow Serving's BatchingParameters. No clip is filled up to the size of another:
# the network would see the filling.
BATCHING_TEXT = f"""\
# TensorFlow Serving reads this file beside saved_model.pb when started with
# {BATCHING_FLAGS}.
# Clips join a batch where their shapes agree: encoded frames always do, raw clips only with others of the
# same height and width; a request of another size fails. A frame that cannot be decoded fails its whole
# batch, so leave batching out where images are not to be trusted.
max_batch_size {{ value: 8 }}
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
batch_timeout_micros {{ value: 5000 }}
max_enqueued_batches {{ value: 64 }}
"""
