import type { Member, ReplicaSet } from "./mongo.ts";

/**
 * Keeps the secondaries alive but lets them copy nothing, so that whatever the primary writes stays on it alone; it stays
 * primary. Call the function that this returns to let them copy again.
 */
export async function holdReplication(set: ReplicaSet, primary: Member): Promise<() => Promise<void>> {
  const secondaries = set.members.filter((member) => member !== primary);
  const configure = async (mode: "alwaysOn" | "off") => {
    await Promise.all(secondaries.map((member) => set.command(member, { configureFailPoint: "stopReplProducer", mode })));
  };
  await configure("alwaysOn");
  return () => configure("off");
}
