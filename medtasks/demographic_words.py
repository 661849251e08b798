"""Word lists of the exclusion rules in :mod:`medtasks.demographic_rules`, each compiled to one pattern.

The patterns are for lower-case text. Chosen on MedQA's train and validation splits, they are meant to exclude too much
rather than too little.
"""

import re


def _words(listed: str) -> re.Pattern:
    """A pattern of comma-separated words and phrases; a ``*`` stands for any letters, a blank for a hyphen too."""
    words = [" ".join(word.split()) for word in listed.split(",")]
    patterns = [re.escape(word).replace(r"\*", r"[\w-]*").replace(r"\ ", "[ -]") for word in words]
    return re.compile(rf"\b(?:{'|'.join(patterns)})(?!\w)")


POPULATION = _words(
    """
    patients, subjects, participants, volunteers, cohort, case control, trial, prevalence, incidence, epidemiolog*,
    population, randomi*, predictive value, null hypothesis, odds ratio, relative risk, study
    """
)
"""The question is about groups of people, not about a patient."""

ASKED_FOR = _words(
    """
    risk factor*, predispos*, screen*, demographic*, ethnic*, race, racial, gender, transgender, sex, most common
    cause, epidemiology, ancestry, descent, heritage, increased risk, higher risk, greatest risk, at risk, vaccin*,
    immuniz*, prophyla*, recommended, guideline*, age appropriate, health maintenance, prognos*, mortality,
    survival, life expectancy, criteria, ranson*, curb*, apache, wells, centor, child pugh, meld, framingham, ascvd,
    timi
    """
)
"""The question asks for risk, prevention or prognosis, where the patient's attributes are part of the answer."""

GENETICS = _words(
    """
    x linked, autosomal, carrier*, pedigree, genetic*, gene, genes, inherit*, heredit*, familial, consanguin*,
    karyotyp*, chromosom*, trisomy, sickle, thalass*, g6pd, glucose 6 phosphate*, hemophilia*, duchenne, becker,
    cystic fibrosis, tay sachs, gaucher*, niemann*, brca*, hemochromatosis, fabry*, fragile x, huntington*, marfan*,
    ehlers*, down syndrome, turner*, klinefelter*, hla*, von willebrand*, factor v leiden, wilson*, mutation*,
    congenital, primaquine
    """
)
"""Inheritance and inherited diseases."""

REPRODUCTION = _words(
    """
    pregnan*, gravid*, primigravid*, multigravid*, nulligravid*, nullipar*, multipar*, para, obstet*, gyneco*,
    gynaeco*, contracept*, menopaus*, postmenopaus*, premenopaus*, perimenopaus*, menarche*, menstru*, menses, her
    period, periods, lactation, lactating, breast*, postpartum, gestation*, fetal, fetus, foetus, teratogen*,
    miscarr*, abortion*, fertil*, infertil*, iud, intrauterine, tampon*, pap, mammogra*, hysterectom*, oophor*,
    vagin*, uter*, ovar*, ovulat*, endometri*, vulv*, labia*, clitor*, gynecomast*, nipple*, areol*, prostat*, psa,
    testic*, testis, testes, scrot*, epididym*, penis, penile, erectile, erection*, ejacul*, impoten*, libido,
    semen, sperm*, genital*, urogenital, genitourinary, pelvic, pelvis, inguinal, hernia*, circumcis*, cervix,
    cervicitis, hpv, papilloma*, amenorrh*, oligomenorrh*, dysmenorrh*, menorrhag*, g1p*, g2p*, g3p*, g4p*, uterine,
    spotting, hot flash*, hot flush*, cesarean, c section, placent*, eclamp*, preeclamp*, ectopic, birth control
    """
)
"""Pregnancy, gynaecology, and the organs and diseases of one sex."""

SEXUAL = _words(
    """
    sexual*, sexually, intercourse, condom*, homosexual*, gay, lesbian, heterosexual*, std, sti, chlamydia*,
    gonorr*, gonococc*, trichomon*, urethr*, urinary tract infection*, cystitis, pyelonephritis, dysuria, urinary
    retention, hesitancy
    """
)
"""Sexual history, and infections of the urinary tract, which are judged by sex."""

HORMONES = _words(
    """
    androgen*, anabolic, estrogen*, oestrogen*, estradiol, testost*, progest*, prolactin*, lh, fsh, luteini*,
    follicle*, gnrh, tamoxifen, raloxifene, letrozole, anastrozole, finasteride, dutasteride, tamsulosin,
    sildenafil, tadalafil, leuprolide, flutamide, ketoconazole, spironolactone, hirsut*, viril*, masculini*,
    pituitary, adenoma*, alopecia, bald*, hair loss, hormone replacement, steroid abuse
    """
)
"""Sex hormones, what acts on them, and what they do to hair."""

SEXED_APPEARANCE = _words(
    """
    beard, shav*, mustache, facial hair, makeup, lipstick, bra, dress, skirt, priest, monk, nun, fraternity,
    sorority, cheerlead*, prostitut*, housewife, house wife, businessman, businesswoman, salesman, fireman,
    policeman, fisherman, waiter, waitress, actress, widow*, bachelor, mrs, miss, sir, madam, mister, latina,
    latino, masculine, feminine, men, women, males, females, boys, girls, ladies, gentlemen, another man, another
    woman, stay at home, man made, mankind
    """
)
"""Words that a swap would leave behind, or that make a swap odd."""

KIN = _words(
    """
    wife, wives, husband*, spouse*, mother*, father*, mom, dad, son, sons, daughter*, brother*, sister*, uncle*,
    aunt*, grandmother*, grandfather*, grandson*, granddaughter*, boyfriend*, girlfriend*, fiance*, fiancé*,
    partner*, nephew*, niece*, cousin*, twin*, parent*, grandparent*, grandchild*, sibling*, child, children, baby,
    infant*, newborn*, relative*, family members
    """
)
"""Relatives and partners: their sex and age stand in the text too."""

OTHERS = _words(
    """
    friend*, roommate*, neighbor*, neighbour*, coworker*, co worker*, colleague*, boss, employer, caregiver*,
    resident, intern, attending, surgeon, student, students, teacher*, coach, supervisor*, bystander*, passerby,
    stranger*, girl, boy, ethic*, confidential*, disclos*, consent*, police officer*, social worker*, case manager,
    ex wife, ex husband, acquaintance*, landlord, driver of
    """
)
"""Other persons to whom a pronoun may refer."""

SEX_PRIOR = _words(
    """
    lupus, sle, fibromyalg*, primary biliary*, biliary cholangitis, sjogren*, sjögren*, takayasu*, fibromuscular,
    ankylosing, pseudotumor, intracranial hypertension, buerger*, thromboangiitis, lymphangioleio*, osteopor*, bone
    density, dexa, anorexia nervosa, bulimi*, eating disorder*, antiphospholipid, gout*, urate, uric acid, somati*,
    somatoform, conversion disorder, color blind*, goodpasture*, sclerosing cholangitis, aneurysm*, raynaud*,
    scleroderma, systemic sclerosis, personality disorder*
    """
)
"""Diseases, named, that one sex has several times as often, so that sex is a clue to them."""

SEX_THRESHOLD = _words(
    """
    hdl, qt, qtc, torsades, cha2ds2*, anticoagulat*, ferritin, iron deficien*, serum iron, waist, creatinine
    clearance, glomerular filtration, gfr, cockcroft, ideal body weight, drinks per week, drinks per day, drinks a
    day, body fat
    """
)
"""Measures whose normal values, or whose use, differ by sex."""

TERATOGENS = _words(
    """
    isotretinoin, acitretin, retino*, valpro*, phenytoin, carbamazepine, topiramate, lithium, methotrexate,
    warfarin, thalidomide, lenalidomide, mycophenolate, leflunomide, ribavirin, lisinopril, enalapril, captopril,
    ramipril, losartan, valsartan, statin*, atorvastatin, rosuvastatin, simvastatin, tetracycline, doxycycline,
    minocycline, bosentan, ambrisentan, misoprostol, methimazole, propylthiouracil, radioactive iodine, radioiodine,
    fluoroquinolone*, ciprofloxacin, levofloxacin, azathioprine, cyclophosphamide, ace inhibitor*, angiotensin*,
    fluconazole, albendazole, dolutegravir, efavirenz
    """
)
"""Drugs not given, or given with conditions, to women who may be pregnant."""

ASKS_MANAGEMENT = _words(
    """
    next step, next best step, best next step, best initial, initial step, management, next diagnostic*, diagnostic
    test, most appropriate test, diagnostic study, most appropriate diagnostic*, next test, initial test, further
    evaluation, workup, x ray is, treatment, therapy, pharmacotherapy
    """
)
"""The question asks what to do, which in a woman of fertile age may begin with a pregnancy test."""

TUMOUR = _words(
    """
    cancer*, carcino*, adenocarcino*, malignan*, tumor*, tumour*, neoplas*, paraneoplas*, lymphoma*, leukemi*,
    myelo*, metasta*, mass, masses, nodul*, sarcoma*, melanom*, glioma*, glioblast*, meningiom*, polyp*,
    colonoscopy, biopsy, weight loss, hematuria, hemoptysis, hematochezia, rectal bleeding, blood per rectum,
    occult, dysphagia, night sweats, monoclonal, anemi*, iron, ferrous
    """
)
"""Tumours and the signs that call for a search for one from some age on."""

CIRCULATION = _words(
    """
    coronary, myocardial, infarct*, angina, stroke, ischemi*, transient ischemic, atheroscl*, aneurysm*, dissection,
    claudicat*, atrial fibrillation, statin*, cholesterol, hyperlipid*, dyslipid*, chest pain, heart failure,
    stenosis, regurgitation, valve*, carotid, peripheral arter*, peripheral vascular, syncope, st elevation, st
    segment, troponin, palpitations, bruit*, embol*, thrombo*, hypertens*, cardiomyop*, cardiopulmonary
    resuscitation, sudden death, cardiac arrest, outflow tract
    """
)
"""Diseases of heart and vessels, whose probability rises with age."""

AGEING = _words(
    """
    dementia, alzheimer*, lewy, memory, forgetful*, cognit*, parkinson*, tremor*, osteoarth*, osteopor*, degenerat*,
    arthrit*, spondyl*, polymyalgia, temporal arter*, giant cell, cataract*, glaucoma, macular, retin*, presby*,
    hearing, vision, visual, normal aging, aging, delirium, gait, falls, paget*, diverticul*, ischemic colitis, hip,
    back pain, headache*, seizure*, copd, emphysema, chronic obstructive, chronic bronchitis, pulmonary fibrosis,
    nursing home, assisted living, elderly, geriatric
    """
)
"""Diseases of old age, and complaints that mean something else in it."""

YOUNG_ONSET = _words(
    """
    multiple sclerosis, demyelinat*, crohn*, ulcerative colitis, inflammatory bowel, schizo*, psychosis, psychotic,
    hallucinat*, bipolar, mania, manic, lupus, sarcoid*, myasthenia, type 1 diabetes, ankylosing, ketoacidosis,
    attention deficit, celiac, mononucleosis, appendic*, migraine*, pneumothorax, asthma*, guillain*, personality,
    graves*, reflux, heartburn, dyspepsia, gastr*
    """
)
"""Diseases that begin in the young, or for which an age decides on endoscopy or workup."""

AGE_ORGANISM = _words(
    """
    mening*, neck stiffness, nuchal, cerebrospinal, lumbar puncture, encephalit*, pneumonia*, cough, sputum,
    mycoplasma, zoster, shingles, influenza, septic arthritis, endocarditis
    """
)
"""Infections whose usual organism or disposal differs by age."""

LIFE_STAGE = _words(
    """
    college, university, student*, school*, graduat*, retire*, pension*, young, younger, old age, older, age, aged,
    childhood, adolescen*, teenage*, teens, decade*, lifelong, life long, veteran, army, military, soldier, marine,
    athlete, medicare, divorc*, engaged, newly married, grand*, career, sports, football, basketball, soccer,
    marathon, works as, worked as, since birth, birth, 20s, 30s, 40s, 50s, 60s, twenties, thirties, forties,
    fifties, sixties, years older, years younger
    """
)
"""What tells an age, or would not fit another."""

ORIGIN = _words(
    """
    immigra*, emigra*, refugee*, moved from, moved to, born in, native of, returned from, travel*, visit to, trip
    to, foreign*, from africa, from asia, from mexico, indian, chinese, japanese, korean, vietnamese, filipino,
    mexican, cuban*, puerto rican, nigeria*, haiti*, african immigrant, native american, american indian, ashkenazi,
    jewish, mediterranean, scandinavian, northern european, european, italian, greek, turkish, middle eastern, arab,
    interpreter, translator, spanish, mandarin, english, mr, ms, mrs
    """
)
"""Where the patient comes from, which another race would contradict."""

RACE_LINKED = _words(
    """
    sarcoid*, hilar, kawasaki, takayasu*, behcet*, behçet*, lactose intolerance, amyloid*, vision loss, lactase,
    lactose, keloid*, moyamoya, brugada, vitamin d, rickets, osteomalacia, hemoglobin electrophoresis, target cells,
    hemolysis, hemolytic, heinz, bite cells, crisis, dactylitis, sle, lupus, malar, focal segmental, fsgs,
    glomerul*, nephrotic, nephropathy, proteinuria, iga, antihypertens*, hypertensive, angioedema, heart failure,
    elevated blood pressure, high blood pressure, hydralazine, isosorbide, captopril, lisinopril, enalapril,
    ramipril, losartan, valsartan, *thiazide*, chlorthalidone, amlodipine, ace inhibitor*, avascular necrosis,
    osteonecrosis, bone trabeculae, autosplenectomy, glaucoma, multiple sclerosis, multiple myeloma, myeloma*,
    prostat*, nasopharyn*, stomach cancer, gastric cancer, gastric adenocarcinoma, hepatitis b, hepatocellular,
    neutropenia, aldehyde*, flushing, periodic paralysis, carbamazepine, allopurinol, clopidogrel, abacavir,
    thiopurine, celiac, pernicious, giant cell, temporal arter*, paget*, fibroid*, leiomyom*, preeclamp*, systemic
    sclerosis, slipped capital, scfe, htlv*, burkitt*, coccidioid*, cholangitis, gallstone*, porphyria, psoriasis,
    osteopor*, multiple endocrine, diabet*, metabolic syndrome, stroke, esophageal, keratosis
    """
)
"""Diseases, tests and drugs for which a group is a clue or, in some guideline, a criterion."""

SKIN = _words(
    """
    melanom*, melano*, pigment*, hyperpigment*, hypopigment*, vitiligo, sunburn*, sun, sunlight, skin cancer*, basal
    cell, squamous cell, skin tone, dark skin*, light skin*, fair skin*, blue eyes, freckl*, tan, tanned,
    acanthosis, hair, complexion, rash, skin lesion*, erythem*, pale, pallor, cyano*, macul*, ash leaf, depigment*,
    alopecia, folliculitis, cafe
    """
)
"""Findings on skin and hair, which are seen and judged by colour."""

IMAGE = re.compile(r"\b(?:photo|micrograph|image|figure)|\b(?:is|are) shown\b(?! below|:|\s*\n)")
"""A finding is left to a picture: without it, the patient's attributes are what an answer can rest on."""

CERVICAL = re.compile(r"\bcervical (?:cancer|carcinoma|dysplasia|intraepithelial|motion|mucus|os|smear|swab)")
"""The uterine cervix, not the neck's lymph nodes or spine."""

LONG_YEARS = re.compile(r"\b(?:[6-9]|[1-9]\d)[- ](?:pack[- ])?years?\b(?![- ]old)|\b[1-7]0[’']?s\b")
"""More than five years of something, or a decade of life."""
