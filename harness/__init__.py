"""A harness for ablation and scaling studies of video models on the TF Model Garden.

One line runs through it, and data only ever move to the right along it; each module stands at one place and imports
only what stands to its left:

    toggles, studies -> experiment, counting, devices -> garden, data, task, runner -> attempts, records, store
    -> estimates, aggregate -> tables, figures -> the commands

A toggle becomes settings (`experiment`), settings become a run (`garden`, `runner`), a run becomes a record
(`execution`, `records`, `store`), records become a frame, a frame a number with an interval (`estimates`, `aggregate`),
a number a cell in a table or a point in a figure. The commands only wire: `planning` says what is missing, `conducting`
has a `worker` process carry it out, `console` shows it, `mirroring` tells a tracker (`tracking`: W&B) of it. TensorFlow
is loaded in that process alone.

Data come in by `data.sources` (which videos there are, read from `data.lists`), `data.video` (a file to frames),
`data.shards` (one shard), `data.preparing` (all of them, and the `data.manifest`), written to `data.places` and held
against the manifest by `data.checking`; or they are drawn (`data.embedded`) or made elsewhere (`data.indexing`).

Out of the line leads `exporting` (a run as the Garden's YAML), into it `garden_folder` and `importing` (a folder that
the Garden trained alone) and `import_wandb` (records from a mirror, read by `wandb_files`).

The science is data and stands apart, in the package `ablations`.
"""
