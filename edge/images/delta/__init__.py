"""Updates from what is here: a layer's recipe, and the files of older images that its chunks are taken from."""
