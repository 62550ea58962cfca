"""A harness for ablation and scaling studies of video models on the TF Model Garden.

One line runs through it, and data only ever move to the right along it; each module stands at one place and imports
only what stands to its left:

    toggles, studies -> experiment, counting -> garden, data, task, runner -> records, store -> estimates, aggregate
    -> tables, figures -> the commands

A toggle becomes settings (`experiment`), settings become a run (`garden`, `runner`), a run becomes a record
(`execution`, `records`, `store`), records become a frame, a frame a number with an interval (`estimates`, `aggregate`),
a number a cell in a table or a point in a figure. The commands only wire: `planning` says what is missing, `conducting`
has a `worker` process carry it out, `console` shows it. TensorFlow is loaded in that process alone.

The science is data and stands apart, in the package `ablations`.
"""
