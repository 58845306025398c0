"""HTTP: routes, schemas, problems, and the group commit behind a fast 202."""
