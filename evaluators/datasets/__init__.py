"""Where cases come from: the built-in world, files in five formats, data sets on the hub. Also texts to learn from."""

from evaluators.datasets.content import check_content, file_digest
from evaluators.datasets.corpus import TESTBED_CORPUS, corpus_digest, read_corpus
from evaluators.datasets.forms import recalled_link
from evaluators.datasets.keeping import Cases, texts_of
from evaluators.datasets.loading import Dataset, load_dataset, stream_cases
from evaluators.datasets.lookup import snippet_texts
from evaluators.datasets.spec import BUILT_IN, DatasetSpec
from evaluators.datasets.training import training_example, training_spec
from evaluators.datasets.validation import validation_set

__all__ = ["BUILT_IN", "TESTBED_CORPUS", "Cases", "Dataset", "DatasetSpec", "check_content", "corpus_digest",
           "file_digest", "load_dataset", "read_corpus", "recalled_link", "snippet_texts", "stream_cases", "texts_of",
           "training_example", "training_spec", "validation_set"]
