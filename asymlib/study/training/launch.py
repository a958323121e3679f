"""Train one decoder of a profile in as many processes as there are GPUs, on one machine or on many.

    accelerate launch -m asymlib.study.training.launch --profile paper --decoder base

does what notebook 03 does and writes the same checkpoint, curve and record. The batch of params.yaml is that of all
processes together, so that the result does not depend on their number. Without a GPU, two processes on the CPU:

    accelerate launch --multi_gpu --num_processes 2 -m asymlib.study.training.launch
        --profile smoke --decoder base --cpu
"""

import argparse
import sys

import pandas as pd
import torch
from torch.distributed.elastic.multiprocessing.errors import record as report

from asymlib.metrics import curve_point  # an entry point is above the layers
from asymlib.study.params import Profile, load_params
from asymlib.study.provenance import write_json
from asymlib.study.reporting.tables import write_table
from asymlib.study.training.run import (
    build_decoder,
    read_first_stage,
    read_source,
    read_validation,
    start_record,
    train,
    what_it_cost,
)
from asymlib.training.distributed import make_accelerator


def launch(params: Profile, name: str, cpu: bool = False) -> None:
    """Train a decoder and write what notebook 03 writes: checkpoint, curve and record.

    Args:
        params: The profile.
        name: The decoder's row.
        cpu: Stay on the CPU.

    Raises:
        FileNotFoundError, ValueError: Something that the profile names is missing or does not fit.
    """
    settings = params.training[name]
    accelerator = make_accelerator(settings, cpu)
    torch.set_num_threads(params.threads)  # accelerate has set it to its own
    with accelerator.main_process_first():  # one process fetches it
        first_stage = read_first_stage(params, name)
    vqgan = build_decoder(params, name, first_stage)
    validation = read_validation(params, first_stage)
    record = start_record(params, name)
    source = read_source(params, name, vqgan, accelerator)
    curve = train(params, name, vqgan, source, validation, record, accelerator)
    if params.stream is not None:
        skipped = torch.tensor([source.skipped], device=accelerator.device)
        record["skipped_images"] = int(accelerator.reduce(skipped, "sum"))
    if accelerator.is_main_process:
        write_table(pd.DataFrame(curve), params.results / "curves" / f"{name}.csv")
        with torch.no_grad():
            plain = first_stage.decode(validation.latent).sample
        record["processes"] = accelerator.num_processes
        record["perceptual_loss"] = settings.perceptual
        record["vanilla"] = curve_point(validation.image, plain, validation.mask)
        record |= what_it_cost(params, name, vqgan)
        write_json(record, params.results / "provenance" / f"{name}.json")
    accelerator.end_training()


@report  # the launcher names the process that failed and why, and ends the others
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="accelerate launch -m asymlib.study.training.launch", description="Train a decoder of a profile."
    )
    parser.add_argument("--profile", required=True, help="a profile of params.yaml")
    parser.add_argument("--decoder", required=True, help="a row of its decoders")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU, also where there is a GPU")
    arguments = parser.parse_args()
    try:
        params = load_params(arguments.profile)
        params.decoder(arguments.decoder)
        launch(params, arguments.decoder, arguments.cpu)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
