"""The request half of attention-fer: from a picture over HTTP to the emotions in it."""
