"""Makes questions about what follows from an edit (Yao et al. 2023, section 5.1 and appendix B).

    records     the edits to extend: a COUNTERFACT or ZsRE file, or a built-in data set
    prompt      what a language model is asked about each, and which of its answers are of use
    endpoint    the model that is asked, behind an OpenAI-compatible address
    asking      asks for all records at once; `journal` keeps every request and answer
    knowledge   which of the linked facts a subject model knows
    building    candidates, and the figures of the paper's table 5
    review      a sheet for people, their verdicts, and the final file
"""
