//! What the shop sells, and for how much. The one place where prices come from.

use std::sync::LazyLock;

use contract::{Currency, Money, ProductId, api::ProductView};

/// Id, name, and price of one piece in cents. An id is stored in orders and sent in events; never give it to another product.
const PRODUCTS: &[(&str, &str, i64)] = &[
    ("waterfall-mug", "Waterfall mug", 1490),
    ("river-stone-soap", "River stone soap", 650),
    ("moss-notebook", "Moss notebook", 980),
    ("spring-water-carafe", "Spring water carafe", 3400),
    ("drizzle-umbrella", "Drizzle umbrella", 2750),
    ("mill-wheel-clock", "Mill wheel clock", 5900),
    ("trout-socks", "Trout socks", 1120),
    ("canoe", "Cedar canoe", 189_000),
];

static CATALOGUE: LazyLock<Vec<ProductView>> = LazyLock::new(|| {
    // A row that is no product would be missing here; a test counts them.
    let product = |&(id, name, cents): &(&str, &str, i64)| {
        let price = Money::new(cents, Currency::EUR).ok()?;
        Some(ProductView { product_id: id.parse().ok()?, name: String::from(name), price })
    };
    PRODUCTS.iter().filter_map(product).collect()
});

/// Every product, in the order in which a shop window shows them.
pub fn products() -> &'static [ProductView] {
    &CATALOGUE
}

/// The product with this id, if the shop sells it.
pub fn find_product(product_id: &ProductId) -> Option<&'static ProductView> {
    CATALOGUE.iter().find(|product| product.product_id == *product_id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_a_product_with_an_id_of_its_own_and_a_price() {
        let ids: BTreeSet<_> = products().iter().map(|product| &product.product_id).collect();
        assert_eq!((products().len(), ids.len()), (PRODUCTS.len(), PRODUCTS.len()));
        assert!(products().iter().all(|product| product.price.amount_minor() > 0 && !product.name.is_empty()));
    }

    #[test]
    fn a_product_is_found_by_its_id_only() {
        let canoe: ProductId = "canoe".parse().unwrap();
        assert_eq!(find_product(&canoe).unwrap().price.to_string(), "1890.00 EUR");
        assert_eq!(find_product(&"submarine".parse().unwrap()), None);
    }
}
