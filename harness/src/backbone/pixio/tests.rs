use super::*;

fn whole(raw: &str) -> String {
    match canonical(raw) {
        Canonical::Whole(name) => name,
        other => panic!("{raw}: {other:?}"),
    }
}

#[test]
fn every_naming_generation_has_the_same_canonical_names() {
    for raw in [
        "blocks.3.mlp.fc1.weight",
        "module.blocks.3.mlp.fc1.weight",
        "encoder.layer.3.mlp.fc1.weight",
        "encoder.layer.3.intermediate.dense.weight",
        "layers.3.mlp.fc1.weight",
        "pixio.layers.3.mlp.fc1.weight",
        "encoder.encoder.layer.3.intermediate.dense.weight",
    ] {
        assert_eq!(whole(raw), "blocks.3.mlp.fc1.weight");
    }
    for raw in ["layernorm.bias", "norm.bias"] {
        assert_eq!(whole(raw), "norm.bias");
    }
    let key = Canonical::Part { name: "blocks.0.attn.qkv.bias".to_owned(), index: 1, of: 3 };
    assert_eq!(canonical("encoder.layer.0.attention.attention.key.bias"), key);
    assert_eq!(canonical("encoder.layers.0.attention.k_proj.bias"), key);
}

#[test]
fn a_backbone_class_applies_its_outer_norm() {
    assert_eq!(canonical("encoder.layernorm.weight"), Canonical::Ignored);
    assert_eq!(canonical("pixio.layernorm.weight"), Canonical::Ignored);
}

#[test]
fn decoders_are_ignored_and_strangers_are_not() {
    assert_eq!(canonical("decoder_blocks.0.attn.qkv.weight"), Canonical::Ignored);
    assert_eq!(canonical("mask_token"), Canonical::Ignored);
    for raw in ["head.weight", "blocks.x.norm1.weight", "blocks.0.ls1.weight", "blocks.0.norm1"] {
        assert_eq!(canonical(raw), Canonical::Unknown, "{raw}");
    }
}

fn standard(width: usize, blocks: usize, heads: usize) -> PixioConfig {
    let config = serde_json::json!({
        "hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": heads
    });
    PixioConfig::from_transformers(&config).unwrap()
}

#[test]
fn published_sizes_have_the_published_parameter_counts() {
    for (width, blocks, heads, millions) in [
        (768, 12, 12, 86),
        (1024, 24, 16, 303),
        (1280, 32, 16, 631),
        (1536, 48, 24, 1362),
        (3072, 48, 32, 5441),
    ] {
        let config = standard(width, blocks, heads);
        let count: usize =
            config.expected().iter().map(|e| e.shape.iter().product::<usize>()).sum();
        let found = count as f64 / 1e6;
        assert!((found - f64::from(millions)).abs() < 0.6, "{millions}M: {found}");
    }
}

#[test]
fn a_config_that_does_not_fit_names_its_field() {
    let read = |text: &str| {
        PixioConfig::from_transformers(&serde_json::from_str(text).unwrap()).unwrap_err()
    };
    assert_eq!(read(r#"{"num_attention_heads": 3}"#), "hidden_size is missing");
    let odd = r#"{"hidden_size": 97, "num_attention_heads": 3, "num_hidden_layers": 2}"#;
    assert_eq!(read(odd), "hidden_size 97 is not a multiple of 3 heads");
    assert_eq!(read(r#"{"hidden_act": "silu"}"#), r#"hidden_act is "silu"; expected "gelu""#);
}
