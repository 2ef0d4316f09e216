// SPDX-License-Identifier: GPL-3.0-or-later
// What only the page can do: offer the slots that the connected file knows, count garment sockets from 1, show a garment
// before it is run, and let new nodes begin with what is best while saved ones keep what they were made with.
// Nothing depends on it: without this file every node works, and says at Run what it must.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

let slotsOfFiles = {}; // file in the Loader's list -> the slots it was trained for; files without an entry take any

const widgetOf = (node, name) => node?.widgets?.find((widget) => widget.name === name);

/** Call `after` whenever the named method of `object` has been called. */
function follow(object, name, after) {
  const before = object[name];
  object[name] = function (...args) {
    const result = before?.apply(this, args);
    after();
    return result;
  };
}

/** The node behind an input, however many reroutes lie between. */
function sourceOf(node, name) {
  if (!node.graph) return null; // a copy that is on its way into a subgraph
  let index = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  for (let steps = 0; node && index >= 0 && steps < 64; steps++) {
    node = node.getInputNode(index);
    if (node?.type !== "Reroute") return node;
    index = 0;
  }
  return null;
}

function offerSlots(encode) {
  const slot = widgetOf(encode, "slot");
  if (!slot) return;
  slot.anydressingSlots ??= [...slot.options.values];
  const loader = sourceOf(encode, "anydressing");
  const known = loader?.comfyClass === "AnyDressingLoader" && slotsOfFiles[widgetOf(loader, "file")?.value];
  slot.options.values = known ? [...known] : [...slot.anydressingSlots];
}

function offerSlotsAround(loader) {
  for (const node of loader.graph?._nodes ?? []) {
    if (node.comfyClass === "AnyDressingGarmentEncode") offerSlots(node);
  }
}

function countFromOne(apply) {
  for (const input of apply.inputs ?? []) {
    const number = /^garments\.garment_(\d+)$/.exec(input.name)?.[1];
    if (number !== undefined) input.label = `garment ${Number(number) + 1}`;
  }
}

/** Show a garment as the page shows a sampler's preview, which both kinds of canvas know. */
async function showGarment(node, where) {
  const name = encodeURIComponent(widgetOf(node, "garment").value);
  const answer = await api.fetchApi(`/anydressing/${where}/${name}`);
  if (!answer.ok || !node.graph) return;
  const number = String(node.id);
  const detail = { blob: await answer.blob(), nodeId: number, displayNodeId: number, realNodeId: number, jobId: "" };
  api.dispatchCustomEvent("b_preview_with_metadata", detail);
  node.graph.setDirtyCanvas(true, true);
}

/** Show the chosen garment before it is run. */
function showWhatIsChosen(node, where) {
  const garment = widgetOf(node, "garment");
  if (!garment) return;
  follow(garment, "callback", () => void showGarment(node, where));
  setTimeout(() => void showGarment(node, where)); // when a saved workflow has set its value
}

/**
 * A new node begins with what is best; one that was saved before there was such a choice keeps what it was made with.
 * name: of a switch, on in new nodes. before: an input that every prompt names. also: what else came with the switch, and
 * what a prompt without it means by it.
 */
function beginWith(node, name, before, also = {}) {
  const choice = widgetOf(node, name);
  if (!choice) return;
  const place = node.widgets.indexOf(choice);
  choice.value = true;
  const configure = node.onConfigure;
  node.onConfigure = function (saved, ...rest) {
    if (saved.widgets_values && place >= saved.widgets_values.length) choice.value = false;
    return configure?.call(this, saved, ...rest);
  };
  fillInWhatAPromptLeavesOut(node, before, { ...also, [name]: false });
}

/**
 * A file in the API's format names only the inputs that it was made with, and what it names is set in the same breath as
 * its nodes are made, by the widgets' callbacks. `before` is always named: whatever was not before it, has what it meant.
 */
function fillInWhatAPromptLeavesOut(node, before, meant) {
  let told = new Set(); // null once the node stands
  setTimeout(() => (told = null));
  for (const name of Object.keys(meant)) {
    const widget = widgetOf(node, name);
    if (widget) follow(widget, "callback", () => told?.add(name));
  }
  follow(widgetOf(node, before), "callback", () => {
    for (const [name, value] of Object.entries(meant)) {
      const widget = widgetOf(node, name);
      if (widget && told && !told.has(name)) widget.value = value;
    }
  });
}

const SETUP = {
  AnyDressingGarmentEncode(node) {
    follow(node, "onConnectionsChange", () => offerSlots(node));
    beginWith(node, "reference", "slot", { words: "" }); // beside a file it dresses by reference, too
  },
  AnyDressingLoader(node) {
    const file = widgetOf(node, "file");
    if (file) follow(file, "callback", () => offerSlotsAround(node));
  },
  AnyDressingApply(node) {
    follow(node, "onConnectionsChange", () => setTimeout(() => countFromOne(node)));
    setTimeout(() => countFromOne(node));
    beginWith(node, "only_where_worn", "strength");
  },
  AnyDressingExampleGarment: (node) => showWhatIsChosen(node, "example_garment"),
  AnyDressingLoadGarment: (node) => showWhatIsChosen(node, "wardrobe"),
};

app.registerExtension({
  name: "AnyDressing",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name === "AnyDressingLoader") {
      slotsOfFiles = nodeData.input?.required?.file?.[1]?.anydressing_slots ?? {};
    }
  },
  nodeCreated(node) {
    SETUP[node.comfyClass]?.(node);
  },
  refreshComboInNodes(definitions) {
    slotsOfFiles = definitions.AnyDressingLoader?.input?.required?.file?.[1]?.anydressing_slots ?? slotsOfFiles;
    const all = definitions.AnyDressingGarmentEncode?.input?.required?.slot;
    const slots = all?.[1]?.options ?? all?.[0];
    for (const node of app.graph?._nodes ?? []) {
      if (node.comfyClass !== "AnyDressingGarmentEncode") continue;
      if (Array.isArray(slots)) widgetOf(node, "slot").anydressingSlots = slots;
      offerSlots(node);
    }
  },
  afterConfigureGraph() {
    for (const node of app.graph?._nodes ?? []) {
      if (node.comfyClass === "AnyDressingGarmentEncode") offerSlots(node);
      if (node.comfyClass === "AnyDressingApply") countFromOne(node);
    }
  },
});
