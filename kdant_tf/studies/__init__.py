"""Studies: many trainings whose results make one table. TensorFlow only in `worker`."""
