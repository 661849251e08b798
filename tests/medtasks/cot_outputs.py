"""What models write, and the option it declares: (output, options, letter, or "" where no option is declared).

Written for this test after the ways in which extractors go wrong: an article or a blood group read as a letter,
an option that is weighed or ruled out read as the answer, thoughts read as statements, lists read as choices.
"""

DRUGS = ["Aspirin", "Heparin", "Warfarin", "Apixaban"]
VITAMINS = ["Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin D"]
VIRUSES = ["Hepatitis A", "Hepatitis B", "Hepatitis C", "Hepatitis D"]
CELLS = ["T cells", "B cells", "NK cells", "Plasma cells"]
GERMS = ["E. coli", "C. difficile", "Group A streptococcus", "S. aureus"]
LONGER = ["Aspirin", "Aspirin and heparin", "Low-dose aspirin", "Heparin"]
PAIRS = ["Ampulla", "Isthmus", "Both A and B", "None of the above"]
DOSES = ["2 mg", "2.5 mg", "5 mg", "25 mg"]
BLOOD = ["O", "A", "B", "AB"]
SIGNS = ["↑ sodium", "↓ sodium", "↑ potassium", "Beta-blocker"]
TWICE = ["Rest", "Ice", "Ice", "Heat"]
GAPS = ["Tremor", "", "-", "Ataxia"]
FIVE = ["Measles", "Mumps", "Rubella", "Roseola", "Parvovirus B19"]
HOURS = ["2-4 h", "24 h", ">24 h", "65°", "Cl-"]
DECISION = ["yes", "no", "maybe"]

VIGNETTE = """Let's work through this step by step.

**Key findings**
- A 45-year-old man with a swollen calf two days after a long flight
- Group A streptococcus was cultured from his throat last week; vitamin K and hepatitis B serology are normal
- Type A personality, grade C renal disease

**Going through the options**
A. Aspirin - an antiplatelet agent; too weak for an established clot, so A is incorrect.
B. Heparin - works at once, but has to be given by injection. B would be the answer if he could not swallow.
C. Warfarin - needs bridging, which rules out C as the only drug.
D. Apixaban - given by mouth, works within hours, needs no monitoring.

"""

ABSTRACT = """The authors randomised 212 patients. There was no difference in pain at six weeks (P = 0.41), and no
serious adverse event. Yes, patients were more satisfied with the new splint, but the trial was not powered for that,
and maybe a longer follow-up would show an effect. No subgroup differed.

"""

DECLARED = [
    # The line that the prompt asks for, and near it
    ("Warfarin inhibits vitamin K epoxide reductase.\nAnswer: C", DRUGS, "C"),
    ("It needs antithrombin.\n\nAnswer: B\n", DRUGS, "B"),
    ("ANSWER: c", DRUGS, "C"),
    ("answer:d", DRUGS, "D"),
    ("Answer : (C)", DRUGS, "C"),
    ("Answer: [B]", DRUGS, "B"),
    ("Answer: <C>", DRUGS, "C"),
    ("Answer - C", DRUGS, "C"),
    ("Answer => C", DRUGS, "C"),
    ("Answer: C- Warfarin", DRUGS, "C"),
    ("Answer – C", DRUGS, "C"),
    ("Answer — C — Warfarin", DRUGS, "C"),
    ("Answer -> B", DRUGS, "B"),
    ("Answer = A", DRUGS, "A"),
    ("Answer： Ｃ", DRUGS, "C"),
    ("Answer:\n\nC", DRUGS, "C"),
    ("The correct answer is:\n\n**C. Warfarin**", DRUGS, "C"),
    ("Final answer: C) Warfarin", DRUGS, "C"),
    ("Correct answer: C: Warfarin", DRUGS, "C"),
    ("Answer choice: D", DRUGS, "D"),
    ("Correct option: B", DRUGS, "B"),
    ("Ans: B", DRUGS, "B"),
    ("Answer: option C", DRUGS, "C"),
    ("Answer: The correct option is C.", DRUGS, "C"),
    ("Answer: most likely B", DRUGS, "B"),
    ("Answer: E", FIVE, "E"),
    ("Answer: B, a glycosaminoglycan", DRUGS, "B"),
    ("Answer: B (not A or C)", DRUGS, "B"),
    ("Answer: B. A is incorrect, as it only inhibits platelets.", DRUGS, "B"),
    ("Answer: B because it works at once", DRUGS, "B"),
    ("Answer: A is the weakest of them, but the only one he may take.", DRUGS, "A"),
    ("Answer: C, since the valve is mechanical; A 45-year-old has decades of risk ahead.", DRUGS, "C"),
    ("Answer: C rather than D", DRUGS, "C"),
    ("Answer: C, D is dearer.", DRUGS, "C"),
    ("Answer: C, D was found later.", DRUGS, "C"),
    ("Step x\n\nx\n\nB", DRUGS, "B"),
    ("Correct answer: B\n\nA. Aspirin\nB. Heparin\nC. Warfarin\nD. Apixaban", DRUGS, "B"),
    ("Correct answer: B. Heparin\n\nIncorrect answers: A, C and D.", DRUGS, "B"),
    ("Answer: B (90% sure)", DRUGS, "B"),
    # Markup
    ("**Answer: C**", DRUGS, "C"),
    ("**Answer:** C", DRUGS, "C"),
    ("**Answer**: **C**", DRUGS, "C"),
    ("__Final Answer:__ *D*", DRUGS, "D"),
    ("### Final Answer: C", DRUGS, "C"),
    ("## Reasoning\nThe INR is monitored.\n\n## Answer\n\nC\n\n## Confidence\nHigh", DRUGS, "C"),
    ("## Final Answer\n**C. Warfarin**\n\nThis is not medical advice.", DRUGS, "C"),
    ("> Answer: B", DRUGS, "B"),
    ("- **Answer:** `B`", DRUGS, "B"),
    ("Answer: “C”", DRUGS, "C"),
    ("Answer: <b>C</b>", DRUGS, "C"),
    ("Answer: C</s>", DRUGS, "C"),
    ("Answer: C<|im_end|>", DRUGS, "C"),
    ("<answer>C</answer>", DRUGS, "C"),
    ("<answer>\nC. Warfarin\n</answer>", DRUGS, "C"),
    ("So $\\boxed{C}$.", DRUGS, "C"),
    ("The final answer is $\\boxed{\\text{C}}$", DRUGS, "C"),
    ("\\[ \\boxed{\\textbf{D. Apixaban}} \\]", DRUGS, "D"),
    ("\\boxed{Warfarin}", DRUGS, "C"),
    ("Answer: \\text{C}", DRUGS, "C"),
    ("$$\n\\boxed{\n  C\n}\n$$", DRUGS, "C"),
    ('{"answer": "C"}', DRUGS, "C"),
    ('{"choice": "B"}', DRUGS, "B"),
    (
        '```json\n{\n  "reasoning": "A 45-year-old man ...",\n  "final_answer": "B",\n  "confidence": 0.8\n}\n```',
        DRUGS,
        "B",
    ),
    ("{'answer': 'D'}", DRUGS, "D"),
    # Sentences
    ("Therefore the answer is C.", DRUGS, "C"),
    ("The answer is c.", DRUGS, "C"),
    ("The correct option is **D**", DRUGS, "D"),
    ("The best choice would be (B).", DRUGS, "B"),
    ("The answer, therefore, is C", DRUGS, "C"),
    ("The answer must be A.", DRUGS, "A"),
    ("The answer to this question is C, warfarin.", DRUGS, "C"),
    ("The correct answer choice is option (B).", DRUGS, "B"),
    ("My answer is B", DRUGS, "B"),
    ("The best answer among the choices is B.", DRUGS, "B"),
    ("The most appropriate option is A.", DRUGS, "A"),
    ("That is why the correct answer is C", DRUGS, "C"),
    ("I would choose option B here.", DRUGS, "B"),
    ("I'd go with C.", DRUGS, "C"),
    ("Between the two, I will go with D, given the renal function.", DRUGS, "D"),
    ("So option B is correct.", DRUGS, "B"),
    ("Option C (Warfarin) is correct because the valve is mechanical.", DRUGS, "C"),
    ("Thus, C. Warfarin is the correct answer.", DRUGS, "C"),
    ("B is the best answer.", DRUGS, "B"),
    ("Hence (D) is the most appropriate choice.", DRUGS, "D"),
    ("Option A is incorrect: it is an antiplatelet drug. Option C is correct: it is an antagonist.", DRUGS, "C"),
    # The option's text in place of its letter
    ("Answer: Warfarin", DRUGS, "C"),
    ("answer: WARFARIN.", DRUGS, "C"),
    ("The answer is warfarin because of the valve.", DRUGS, "C"),
    ("Answer: Warfarin (Coumadin)", DRUGS, "C"),
    ("The correct answer is **Vitamin C**.", VITAMINS, "C"),
    ("The answer is vitamin B-12.", VITAMINS, "B"),
    ("Answer: hepatitis B", VIRUSES, "B"),
    ("Answer: B cells", CELLS, "B"),
    ("The answer is NK cells.", CELLS, "C"),
    ("Answer: E. coli", GERMS, "A"),
    ("Answer: C. difficile", GERMS, "B"),
    ("Answer: Group A streptococcus", GERMS, "C"),
    ("Answer: Aspirin and heparin", LONGER, "B"),
    ("Answer: low dose aspirin", LONGER, "C"),
    ("Answer: aspirin", LONGER, "A"),
    ("Answer: both A and B", PAIRS, "C"),
    ("Answer: none of the above", PAIRS, "D"),
    ("Answer: 2.5 mg", DOSES, "B"),
    ("Answer: 25 mg", DOSES, "D"),
    ("The answer is 24 h.", HOURS, "B"),
    ("The answer is 2 - 4h.", HOURS, "A"),
    ("The answer is >24 h.", HOURS, "C"),
    ("The answer is 65°.", HOURS, "D"),
    ("The answer is Cl-.", HOURS, "E"),
    ("Answer: AB", BLOOD, "D"),
    ("Answer: O", BLOOD, "A"),
    ("Answer: ↓ sodium", SIGNS, "B"),
    ("The answer is a beta blocker.", SIGNS, "D"),
    ("Answer: Parvovirus B19", FIVE, "E"),
    ("Answer: Ataxia", GAPS, "D"),
    # A letter and another option's text: letters are what was asked for
    ("Answer: B. Warfarin", DRUGS, "B"),
    ("Answer: A", BLOOD, "A"),
    # Letter and text where the next word could make the letter something else
    ("Answer: C Warfarin", DRUGS, "C"),
    ("Answer: A Aspirin", DRUGS, "A"),
    ("Answer: C. warfarin", DRUGS, "C"),
    ("Answer: B. B cells", CELLS, "B"),
    # Nothing but an option
    ("C", DRUGS, "C"),
    ("(C)", DRUGS, "C"),
    ("C.", DRUGS, "C"),
    ("**C**", DRUGS, "C"),
    ("C. Warfarin", DRUGS, "C"),
    ("C) Warfarin.", DRUGS, "C"),
    ("Warfarin", DRUGS, "C"),
    ("Option C", DRUGS, "C"),
    ("Answer C", DRUGS, "C"),
    ("B. Heparin\n\nExplanation: it acts through antithrombin, and vitamin K does not matter.", DRUGS, "B"),
    ("It acts through antithrombin and is given by injection.\n\nB", DRUGS, "B"),
    ("A. Aspirin\nB. Heparin\nC. Warfarin\nD. Apixaban\n\nThe valve is mechanical.\n\nC", DRUGS, "C"),
    # The last one counts
    ("Answer: B\n\nWait, the valve is mechanical.\n\nAnswer: C", DRUGS, "C"),
    ("The answer is A. Hmm, no: it is given by mouth. So the answer is D.", DRUGS, "D"),
    ("\\boxed{A} would be too weak. Final answer: \\boxed{B}", DRUGS, "B"),
    ("Answer: C\n\nActually, option D is correct.", DRUGS, "D"),
    ("The answer is not A but B.", DRUGS, "B"),
    ("The answer isn't A; it is (C).", DRUGS, "C"),
    ("The correct answer is not A or B, but rather D.", DRUGS, "D"),
    ("Answer: C\n\nExplanation: A is incorrect, B is incorrect, and this rules out D.", DRUGS, "C"),
    ("Answer: B\n\nIf the answer is A, the bleeding time would be long.", DRUGS, "B"),
    ("Answer: C. To sum up, the answer is based on the valve, so the answer is", DRUGS, "C"),
    ("Answer: D\n\nThe wrong answer is B, and one would be tempted to say the answer is A.", DRUGS, "D"),
    ("Option A is correct. Option B is correct. Option D is correct. So the false one is C.\nAnswer: C", DRUGS, "C"),
    # Thoughts
    ("<think>\nThe answer is A. No, wait.\n</think>\n\nAnswer: C", DRUGS, "C"),
    ("It could be aspirin. Answer: A\n</think>\nAnswer: C", DRUGS, "C"),
    ("<think>first</think>Answer: B<think>\nShould it be C? Answer: C\n</think>", DRUGS, "B"),
    ("<THINK>Answer: A</THINK>\n\n**D**", DRUGS, "D"),
    ("Answer: B\n<think>But maybe the answer is C", DRUGS, "B"),
    ("<think>\n</think>\n\nThe answer is B.", DRUGS, "B"),
    # Long ones
    (VIGNETTE + "Answer: D", DRUGS, "D"),
    (VIGNETTE + "Therefore, the most appropriate option is **D) Apixaban**.", DRUGS, "D"),
    (VIGNETTE + "**Final Answer**\n\n(D)\n\nPlease see a physician for A, B or C-rated advice.", DRUGS, "D"),
    (VIGNETTE * 5 + "\n$$\\boxed{\\mathrm{D}}$$", DRUGS, "D"),
    ("<think>\n" + VIGNETTE * 3 + "Answer: A\n</think>\n\n" + VIGNETTE + "Answer: D. Apixaban\n", DRUGS, "D"),
    # Yes, no, maybe
    ("Answer: yes", DECISION, "A"),
    ("Answer: B. no", DECISION, "B"),
    ("the answer is maybe", DECISION, "C"),
    ("Answer: No, the groups did not differ.", DECISION, "B"),
    ("Yes.", DECISION, "A"),
    (ABSTRACT + "Answer: B", DECISION, "B"),
    (ABSTRACT + "**Answer: no**", DECISION, "B"),
    (ABSTRACT + "So the answer is maybe.", DECISION, "C"),
]

UNDECLARED = [
    # Words that hold a letter
    ("A 45-year-old man with a swollen calf needs an anticoagulant.", DRUGS, ""),
    ("Answer: A 45-year-old man with a swollen calf", DRUGS, ""),
    ("The answer is A 45-year-old man who smokes.", DRUGS, ""),
    ("Answer: A patient with atrial fibrillation", DRUGS, ""),
    ("I think vitamin A is needed, and vitamin C does not matter here.", DRUGS, ""),
    ("The man has hepatitis B and type A blood, grade C cirrhosis. Group A streptococcus was found.", DRUGS, ""),
    ("The answer is hepatitis B.", DRUGS, ""),
    ("Answer: type A", DRUGS, ""),
    ("Answer: Grade C", DRUGS, ""),
    ("Answer: B cells", DRUGS, ""),
    ("Answer: D-dimer", DRUGS, ""),
    ("Answer: B12 deficiency", DRUGS, ""),
    ("Answer: A1c", DRUGS, ""),
    ("Answer: C. difficile", DRUGS, ""),
    ("The answer is the A-a gradient.", DRUGS, ""),
    ("The answer is a thrombus in the popliteal vein.", DRUGS, ""),
    ("Vitamin A is the best choice for measles.", DRUGS, ""),
    ("A beta blocker is the best choice.", DRUGS, ""),
    ("Option C is right bundle branch block, which he has.", DRUGS, ""),
    # Weighed, denied, supposed
    ("Not B.", DRUGS, ""),
    ("B is incorrect.", DRUGS, ""),
    ("The low platelets rule out B.", DRUGS, ""),
    ("The answer is not B.", DRUGS, ""),
    ("If the answer is B, platelets must be checked.", DRUGS, ""),
    ("I do not believe that the answer is A.", DRUGS, ""),
    ("It is unlikely that the correct answer is D.", DRUGS, ""),
    ("One might be tempted to say the answer is A.", DRUGS, ""),
    ("The wrong answer is B.", DRUGS, ""),
    ("If option B is correct, then the platelets fall.", DRUGS, ""),
    ("Option B is not correct.", DRUGS, ""),
    ("Option B is correct if he cannot swallow.", DRUGS, ""),
    ("Which option is correct? A is weaker than B.", DRUGS, ""),
    ("Is the answer B? Or C?", DRUGS, ""),
    ("Option A is correct. Option C is correct. Option D is correct.", DRUGS, ""),
    ("The answer could be A or C.", DRUGS, ""),
    ("Answer: B is incorrect", DRUGS, ""),
    ("I would not choose B.", DRUGS, ""),
    # Several
    ("Answer: A or B", DRUGS, ""),
    ("Answer: A (or B)", DRUGS, ""),
    ("The correct answers are A and C.", DRUGS, ""),
    ("Answer: A and C", DRUGS, ""),
    ("Answer: A, C", DRUGS, ""),
    ("Answer: B/D", DRUGS, ""),
    ("Answer: A, B, and C", DRUGS, ""),
    ("The answer is either B or C.", DRUGS, ""),
    ("Answer: A (Aspirin) or C (Warfarin)", DRUGS, ""),
    ("Answer: aspirin and heparin", DRUGS, ""),
    ("\\boxed{A, D}", DRUGS, ""),
    ('{"answer": ["A", "C"]}', DRUGS, ""),
    ("Answer: yes or no", DECISION, ""),
    ("Answer: yes/no/maybe", DECISION, ""),
    ("Answer: Ice", TWICE, ""),
    # None of those offered
    ("Answer: none of the above", DRUGS, ""),
    ("Answer: All of the above", DRUGS, ""),
    ("The correct answer is both of these.", DRUGS, ""),
    ("Answer: neither", DRUGS, ""),
    ("Answer: E", DRUGS, ""),
    ("Answer: D", DECISION, ""),
    ("Answer: E. coli", DRUGS, ""),
    ("Answer: N/A", DRUGS, ""),
    ("Answer: rivaroxaban", DRUGS, ""),
    ("Answer: 3", DRUGS, ""),
    ("Answer: 2 mg/kg", DRUGS, ""),
    ("Answer: B\n\nOn reflection: Answer: none of the above", DRUGS, ""),
    ("Answer: B\n\nOn reflection: Answer: A or B", DRUGS, ""),
    # Nothing said
    ("", DRUGS, ""),
    ("   \n\n", DRUGS, ""),
    ("...", DRUGS, ""),
    ("lol", DRUGS, ""),
    ("I'm sorry, but I can't give medical advice. A doctor should see the patient.", DRUGS, ""),
    ("Answer: I cannot answer this question.", DRUGS, ""),
    ("Answer: I, as a language model, cannot say.", DRUGS, ""),
    ("Answer:", DRUGS, ""),
    ("Answer: <letter>", DRUGS, ""),
    ("The valve is mechanical, so the answer is", DRUGS, ""),
    (VIGNETTE, DRUGS, ""),
    ("<think>\nThe answer is C. Answer: C", DRUGS, ""),
    ("<think>\nAnswer: C\n</think>", DRUGS, ""),
    ("Answer: C\n</think>\n\nI am not sure.", DRUGS, ""),
    # Lists of the options
    ("A. Aspirin\nB. Heparin\nC. Warfarin\nD. Apixaban", DRUGS, ""),
    ("Answer:\nA. Aspirin\nB. Heparin\nC. Warfarin\nD. Apixaban", DRUGS, ""),
    ("Answer: A. Aspirin\nB. Heparin\nC. Warfarin\nD. Apixaban", DRUGS, ""),
    ("Let us look at each.\n\n**A. Aspirin**\nToo weak.\n\n**B. Heparin**\nFast.\n\n**C. Warfarin**", DRUGS, ""),
    ("It is one of\n- Aspirin\n- Heparin", DRUGS, ""),
    ("A\nB\nC\nD", DRUGS, ""),
    ("A. yes\nC. maybe", DECISION, ""),
    ("A. Aspirin\n\nStep 1: Name the artery.\n\nD. Apixaban\n\nD. Apixaban", DRUGS, ""),
    # Yes and no in prose
    (ABSTRACT, DECISION, ""),
    ("No difference was found.", DECISION, ""),
    ("The answer is no longer clear.", DECISION, ""),
    ("Answer: no evidence of benefit", DECISION, ""),
    ("There is no answer in the abstract.", DECISION, ""),
]

OUTPUTS = DECLARED + UNDECLARED
