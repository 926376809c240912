import type { DescEnum, DescEnumValue } from "@bufbuild/protobuf";

/** An enum value as REST writes it: without the prefix that all of its enum's values share, such as STORE_NOTIFIED. */
export function bareName({ name, parent }: DescEnumValue): string {
  const prefix = parent.sharedPrefix ?? "";
  return name.toLowerCase().startsWith(prefix) ? name.slice(prefix.length) : name;
}

/** The values that stand for something, by their bare names: all but "unspecified". */
export function bareNames(desc: DescEnum): string[] {
  return desc.values.filter(({ number }) => number !== 0).map(bareName);
}
