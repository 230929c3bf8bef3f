"""A timm model as a backbone: `pixio-eval run nyuv2/dpt --backbone py:timm_backbone.py:dinov2_small`."""
import timm


def dinov2_small():
    model = timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=True, dynamic_img_size=True)

    def tokens(images, blocks):  # [B, 3, H, W], normalised
        taps = model.forward_intermediates(images, indices=blocks, return_prefix_tokens=True,
                                           output_fmt="NLC", intermediates_only=True)
        return [{"patches": patches, "summary": prefix} for patches, prefix in taps]

    return {"module": model, "tokens": tokens, "norm": model.norm, "name": "DINOv2-S (timm)",
            "blocks": len(model.blocks), "width": model.embed_dim, "patch": 14}
