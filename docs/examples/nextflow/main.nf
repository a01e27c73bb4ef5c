// Slides of one site to tiles, an encoder and features; see docs/workflows.md.
//
// wsi-lmc itself knows what is done, so everything is written into one run folder that all tasks see (params.run), and
// nothing but the order of the steps travels through channels. Called again, it does what is missing.
nextflow.enable.dsl = 2

params.slides = null // what "wsi-lmc tile" takes: an absolute path
params.run = null // the run folder: an absolute path that every task can write to
params.tile_shards = 8
params.embed_shards = 2
params.steps = 10000

process TILE {
    label 'cpu'
    tag "${shard}/${params.tile_shards}"

    input:
    val shard

    output:
    val true

    script:
    """
    wsi-lmc tile '${params.slides}' -o '${params.run}' --shard ${shard}/${params.tile_shards} \\
        --workers ${task.cpus} --quiet || [ \$? -eq 1 ]
    """
}

process TRAIN {
    label 'gpu'

    input:
    val ready

    output:
    val true

    script:
    """
    wsi-lmc train '${params.run}' -o '${params.run}/checkpoint' --resume --steps ${params.steps} --quiet
    """
}

process EMBED {
    label 'gpu'
    tag "${shard}/${params.embed_shards}"

    input:
    val ready
    val shard

    output:
    val true

    script:
    """
    wsi-lmc embed '${params.run}' --ckpt '${params.run}/checkpoint' -o '${params.run}' \\
        --shard ${shard}/${params.embed_shards} --workers 1 --quiet || [ \$? -eq 1 ]
    """
}

process VERIFY {
    label 'cpu'

    input:
    val ready

    script:
    """
    wsi-lmc verify '${params.run}' --quiet
    """
}

workflow {
    if (!params.slides || !params.run) {
        error "give --slides and --run, both as absolute paths"
    }
    tiled = TILE(Channel.of(1..params.tile_shards)).collect()
    trained = TRAIN(tiled) // a value, since its input is one: so every task of EMBED gets it
    embedded = EMBED(trained, Channel.of(1..params.embed_shards)).collect()
    VERIFY(embedded)
}
