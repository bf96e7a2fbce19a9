"""Pages and figures: the report of a night, the evaluation of models, drift, labelling, subtraction."""
