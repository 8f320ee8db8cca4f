"""Truth inference: the true option of each task, by labels of annotators who err. No SQL, no HTTP."""
