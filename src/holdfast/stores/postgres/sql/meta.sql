SELECT store FROM {schema}.holdfast_meta;
