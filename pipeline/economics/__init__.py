"""What a model of one's own costs against an API. Prices are dated inputs, never constants in code."""
