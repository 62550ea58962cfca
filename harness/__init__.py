"""A harness for ablation and scaling studies of video models on the TF Model Garden.

One line runs through it, and data only ever move to the right along it; each module stands at one place and imports
only what stands to its left:

    toggles, stages, studies, designs -> experiment, counting, slices, devices -> garden, data, transfer, task, runner
    -> attempts, records, store -> estimates, power -> comparison, verdicts, aggregate, credit -> tables, figures,
    layouts -> the commands

A toggle becomes settings (`experiment`; `dotted` names their fields), settings become a run (`garden`, `runner`), a run
becomes a record (`execution`, `records`, `store`), records become a frame, a frame a number with an interval
(`estimates`), numbers a difference (`comparison`), a row's step (`aggregate`) or a toggle's credit under a design
(`credit`), and those a cell in a table (`tables`, drawn by `rendering`) or a point in a figure (`figures`,
`credit_figure`, `paper_figures`, `curve_figure`, on the ground of `drawing`); `paper_tables` and `architecture` are the
paper's other tables, and a study's layout (`layouts`) says which of them it becomes. A run may start from another's
weights (`transfer`; `fitting` refuses those of another network): a row's stages are such runs, one after the other. The
commands only wire (`running` holds what they share): `planning` says what is missing, `conducting` has a `worker`
process carry it out, `console` shows it, `mirroring` tells a tracker (`tracking`: W&B) of it, `gathering` reads what
was measured and `outputs` writes what is drawn. TensorFlow is loaded in the worker alone.

Several processes, or machines, carry out one plan: each run is claimed in a queue (`leases`: attempts, their heartbeats
and their ends; `claims` says what they come to) in Optuna's `storage`; `sharing` says what workers have in common,
`joining` refuses those that differ, `presence` knows which of this machine are alive. The runs may be in a bucket
(`addresses`), where `once` finds who else wrote a record. `overview` is what can be seen of
it (`looking` opens it, `overview_table` draws it; the commands `status`, `cancel`, `retry`).

`reporting` makes a report of everything that was recorded, in `report_pages`: `recovering` tells from the records which
trainings there were, each a `workspace`, as a command's flags make one; `explaining` follows one number back to its
runs. Of thousands of records a report keeps `excerpts` and which videos they have right (`hits`), which several
processes read (`forking`); how long that takes is measured on `synthetic` records (`report_speed`).

A scaling sweep goes the same line: `sweeping` has its space and limits, `searching` asks Optuna and tells it what came
of a run (`sweep_storage` keeps it, `sweep_workers` shares it, `sweep_run` wires it, `sweep_console` shows it),
`sweep_report` sums it up and `sweep_figure` draws it (`scaling_sweep`).

Data come in by `data.sources` (which videos there are, read from `data.lists`), `data.video` (a file to frames),
`data.shards` (one shard), `data.preparing` (all of them, and the `data.manifest`), written to `data.places` and held
against the manifest by `data.checking`; or they are drawn (`data.embedded`) or made elsewhere (`data.indexing`). Clips
are read by `data.reader`: `data.decoding` makes frames, `data.augment` is RandAugment over a clip, `data.draws` fixes
every draw, `data.inputs` does on the accelerator what can wait for it; `data.speed` times it (`benchmark`). To be
contrasted, `data.two_clips` of each video are read, and `data.distortions` are what becomes of them.

What a run learns (`objectives`) is one of `tasks`: classes (`task`), or which clips belong together (`contrastive`).
`lineage` says what a record tells of its stage, and of the run that it started from.

What a run would need of a TPU is found out without one: `tpu.programs` says what a core would execute, `tpu.lowering`
traces it, `tpu.compiler` is Google's compiler (`tpu.estimating` stands in where it is not installed), `tpu.proving`
compiles one program, and `tpu.compiling` several in processes of their own, which leave `tpu.results`. With the peaks
of `slices` and what was measured they become `tpu.forecasts` of runs, drawn by `tpu.showing`, and the `tpu.costing`
of a study's rows; `preflighting` wires it (`preflight`) and refuses what cannot fit. `input_speed` keeps what a machine
was measured to read. `seeding` is what a step needs of the state of a process, here as in `runner`.

What the statistics promise is tried out on synthetic studies (`simulation`, `simulated_studies`, `simulated_methods`,
`simulated_checks`; the command `check_statistics`), what more seeds or videos would show is planned by `power`
(`seed_planning`, `seed_report`, `plan_seeds`), and what the paper's own printed numbers can show is said by
`published_steps` (`paper_significance`).

Out of the line leads `exporting` (a run as the Garden's YAML, the command `export`), into it `garden_folder` and
`importing` (a folder that the Garden trained alone, the command `import_garden`) and `import_wandb` (records from a
mirror, read by `wandb_files`).

The science is data and stands apart, in the package `ablations`.
"""

import os

# TensorFlow reads it when it is loaded, which happens after this. It would take oneDNN's convolutions by itself only on
# processors with AVX-512 VNNI; on all others its own gradients of 3D convolutions cost ten times as much.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
