//! `SyncImages` (API page 213/15711) and `DeleteImages` (213/15716): what they refuse, in which order, and
//! what they do.

use serde_json::{Value, json};

use crate::model::Region;

use super::super::world::{Image, World};
use super::parameters::{Field, Kind, Parameters};
use super::{Action, ApiError, REGIONS, Scene, cvm};

const VERSION: &str = "2017-03-12";

/// The longest name of an image, in characters.
const NAME_LIMIT: usize = 60;

/// Regions outside the mainland. Copies do not cross its border (product page 213/4943).
const ABROAD: &[&str] = &[
    "ap-hongkong",
    "ap-singapore",
    "ap-jakarta",
    "ap-bangkok",
    "ap-seoul",
    "ap-tokyo",
    "na-siliconvalley",
    "na-ashburn",
    "sa-saopaulo",
    "eu-frankfurt",
];

pub(super) const ACTIONS: &[Action] = &[
    Action {
        service: "cvm",
        name: "SyncImages",
        version: VERSION,
        needs_region: true,
        rate: 10,
        fields: &[
            Field::required("ImageIds", Kind::Texts),
            Field::required("DestinationRegions", Kind::Texts),
            Field::optional("DryRun", Kind::Flag),
            Field::optional("ImageName", Kind::Text),
            Field::optional("ImageSetRequired", Kind::Flag),
            Field::optional("Encrypt", Kind::Flag),
            Field::optional("KmsKeyId", Kind::Text),
        ],
        run: sync_images,
    },
    Action {
        service: "cvm",
        name: "DeleteImages",
        version: VERSION,
        needs_region: true,
        rate: 10,
        fields: &[
            Field::required("ImageIds", Kind::Texts),
            Field::optional("DeleteBindedSnap", Kind::Flag),
            Field::optional("DryRun", Kind::Flag),
        ],
        run: delete_images,
    },
];

fn sync_images(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let ids = parameters.texts("ImageIds").unwrap_or_default();
    let [id] = ids.as_slice() else {
        return Err(ApiError::new(
            "InvalidParameterValue",
            "One image is copied by a call.",
        ));
    };
    if parameters.flag("Encrypt") || parameters.text("KmsKeyId").is_some() {
        return Err(ApiError::new(
            "UnsupportedOperation",
            "The simulator makes no encrypted copies.",
        ));
    }
    let source = cvm::find_all(world, scene.region, &[id])?.remove(0).clone();
    let name = parameters.text("ImageName").unwrap_or(&source.name);
    if name.chars().count() > NAME_LIMIT {
        return Err(ApiError::new(
            "InvalidParameterValue.TooLong",
            format!("The name `{name}` is longer than {NAME_LIMIT} characters."),
        ));
    }
    if source.state != "NORMAL" {
        return Err(ApiError::new(
            "InvalidImageId.IncorrectState",
            format!("The image `{id}` is {}.", source.state),
        ));
    }
    let mut regions: Vec<Region> = Vec::new();
    for destination in parameters.texts("DestinationRegions").unwrap_or_default() {
        check_destination(&source, destination)?;
        check_room(world, destination, name)?;
        let region = destination.parse().map_err(|_| unknown(destination))?;
        if !regions.contains(&region) {
            regions.push(region);
        }
    }
    if parameters.flag("DryRun") {
        return Ok(json!({"ImageSet": []}));
    }
    let copies: Vec<Value> = regions
        .into_iter()
        .map(|region| {
            let image_id = world.start_copy(&source, region.clone(), name);
            json!({"ImageId": image_id, "Region": region})
        })
        .collect();
    if parameters.flag("ImageSetRequired") {
        Ok(json!({"ImageSet": copies}))
    } else {
        Ok(json!({"ImageSet": []}))
    }
}

fn unknown(region: &str) -> ApiError {
    ApiError::new(
        "InvalidRegion.NotFound",
        format!("The region `{region}` is not found."),
    )
}

fn check_destination(source: &Image, destination: &str) -> Result<(), ApiError> {
    if REGIONS.iter().all(|(code, _)| *code != destination) {
        return Err(unknown(destination));
    }
    let home = source.region.as_str();
    let is_at_home = home == destination;
    match source.image_type.as_str() {
        "PRIVATE_IMAGE" if is_at_home => {
            return Err(ApiError::new(
                "InvalidParameterValue.InvalidRegion",
                "A custom image cannot be copied to its own region.",
            ));
        }
        "PRIVATE_IMAGE" => {}
        "SHARED_IMAGE" if is_at_home => return Ok(()),
        "SHARED_IMAGE" => {
            return Err(ApiError::new(
                "InvalidParameterValue.InvalidRegion",
                "A shared image can be copied to its own region only.",
            ));
        }
        _ => {
            return Err(ApiError::new(
                "UnauthorizedOperation.ImageNotBelongToAccount",
                format!("The image `{}` does not belong to the account.", source.id),
            ));
        }
    }
    let is_isolated = |region: &str| region.ends_with("-fsi");
    if ABROAD.contains(&home) != ABROAD.contains(&destination)
        || is_isolated(home) != is_isolated(destination)
    {
        return Err(ApiError::new(
            "InvalidRegion.Unavailable",
            format!("Images of `{home}` cannot be copied to `{destination}`."),
        ));
    }
    // No code speaks of whole-machine images; this is the one for an image that may not undergo this.
    if source.disks.len() > 1 {
        return Err(ApiError::new(
            "InvalidParameterValue.InvalidImageId",
            "An image of a whole machine cannot be copied to another region.",
        ));
    }
    Ok(())
}

fn check_room(world: &World, destination: &str, name: &str) -> Result<(), ApiError> {
    let own = || {
        world.images.iter().filter(|image| {
            image.region.as_str() == destination && image.image_type == "PRIVATE_IMAGE"
        })
    };
    if own().count() >= world.image_quota {
        return Err(ApiError::new(
            "ImageQuotaLimitExceeded",
            format!("The quota of images in `{destination}` is used up."),
        ));
    }
    if own().any(|image| image.name == name) {
        return Err(ApiError::new(
            "InvalidImageName.Duplicate",
            format!("There is an image `{name}` in `{destination}`."),
        ));
    }
    Ok(())
}

fn delete_images(
    world: &mut World,
    scene: &Scene<'_>,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let ids = parameters.texts("ImageIds").unwrap_or_default();
    for image in cvm::find_all(world, scene.region, &ids)? {
        if image.image_type != "PRIVATE_IMAGE" {
            return Err(ApiError::new(
                "UnauthorizedOperation.ImageNotBelongToAccount",
                format!("The image `{}` does not belong to the account.", image.id),
            ));
        }
        if matches!(image.state.as_str(), "CREATING" | "SYNCING" | "IMPORTING") {
            return Err(ApiError::new(
                "InvalidImageId.IncorrectState",
                format!("The image `{}` is {}.", image.id, image.state),
            ));
        }
    }
    if parameters.flag("DryRun") {
        return Ok(json!({}));
    }
    for id in ids {
        world.delete_image(scene.region, id, parameters.flag("DeleteBindedSnap"));
    }
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(change: impl FnOnce(&mut Image), destination: &str) -> String {
        let id = "img-test0001".parse().expect("an image id");
        let mut image = Image::linux(id, "ap-guangzhou".parse().expect("a region"), 50);
        change(&mut image);
        check_destination(&image, destination).map_or_else(|error| error.code, |()| String::new())
    }

    #[test]
    fn the_documented_limits_have_their_codes() {
        let shared = |image: &mut Image| image.image_type = "SHARED_IMAGE".to_owned();
        let public = |image: &mut Image| image.image_type = "PUBLIC_IMAGE".to_owned();
        let whole = |image: &mut Image| {
            let disk = image.disks[0].clone();
            image.disks.push(disk);
        };
        assert_eq!(code(|_| (), "ap-beijing"), "");
        assert_eq!(code(|_| (), "ap-nowhere"), "InvalidRegion.NotFound");
        assert_eq!(code(|_| (), "ap-singapore"), "InvalidRegion.Unavailable");
        assert_eq!(code(|_| (), "ap-shanghai-fsi"), "InvalidRegion.Unavailable");
        let invalid = "InvalidParameterValue.InvalidRegion";
        assert_eq!(code(|_| (), "ap-guangzhou"), invalid);
        assert_eq!(code(shared, "ap-guangzhou"), "");
        assert_eq!(code(shared, "ap-beijing"), invalid);
        let foreign = "UnauthorizedOperation.ImageNotBelongToAccount";
        assert_eq!(code(public, "ap-beijing"), foreign);
        let refused = "InvalidParameterValue.InvalidImageId";
        assert_eq!(code(whole, "ap-beijing"), refused);
    }
}
