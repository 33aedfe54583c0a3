"""EMICA: photograph to FLAME coefficients by the networks that the paper uses.

The networks are rebuilt here in plain torch; their weights come from the user's own copy of the checkpoint.

Source:
    Danecek et al., Emotional Speech-Driven Animation with Content-Emotion Disentanglement (EMOTE), SIGGRAPH Asia 2023,
    whose reconstruction combines MICA (Zielonka et al., ECCV 2022), DECA (Feng et al., SIGGRAPH 2021) and EMOCA
    (Danecek et al., CVPR 2022).
"""
