"""Infer with crowd-kit. Read labels as JSON from standard input, print the posteriors."""

import json
import sys
import time


def main() -> None:
    import pandas as pd  # type: ignore[import-untyped]
    from crowdkit.aggregation import (  # type: ignore[import-not-found]
        DawidSkene,
        OneCoinDawidSkene,
    )

    methods = {"dawid_skene": DawidSkene, "one_coin": OneCoinDawidSkene}
    asked = json.load(sys.stdin)
    labels = pd.DataFrame(asked["labels"], columns=["task", "worker", "label"])
    begin = time.process_time()
    model = methods[asked["method"]](n_iter=asked["iterations"], tol=asked["tolerance"])
    posteriors = model.fit_predict_proba(labels)
    seconds = time.process_time() - begin
    rows = posteriors.sort_index().sort_index(axis="columns")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "iterations": len(model.loss_history_),
                "tasks": rows.index.tolist(),
                "options": rows.columns.tolist(),
                "posteriors": rows.to_numpy().tolist(),
            }
        )
    )


if __name__ == "__main__":
    main()
