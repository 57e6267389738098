"""Random views of images: whole batches at once, one draw of parameters for each image, published presets."""
