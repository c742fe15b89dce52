"""fisher_models: foundation models for industrial signals, their front-end, bundles and export."""
