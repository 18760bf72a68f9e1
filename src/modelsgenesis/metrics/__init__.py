"""What a prediction is worth: segmentation and classification metrics, intervals over patients, significance."""
