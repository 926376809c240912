// The part of emmett's API that the benchmark uses: the packages of this folder are there only after the benchmark has run.
declare module "@event-driven-io/emmett-mongodb" {
  type Event = { readonly type: string; readonly data: object; readonly metadata: object };
  type EventStore = {
    appendToStream(
      streamName: string,
      events: readonly Event[],
      options: { readonly expectedStreamVersion: "STREAM_DOES_NOT_EXIST" },
    ): Promise<unknown>;
  };
  export function getMongoDBEventStore(options: {
    readonly client: import("mongodb").MongoClient;
    readonly storage: { readonly type: "COLLECTION_PER_STREAM_TYPE"; readonly databaseName: string };
  }): EventStore;
}
