// A case in NiiVue, by way of ipyniivue's widget: a model of a few lines stands in for the one of a notebook.
import niivue from "./niivue.js";

const part = (id) => document.getElementById(id);
const models = new Map(); // by the number that the widget knows a volume by

class Model {
  constructor(values) {
    this.values = values;
    this.listeners = {};
    this.widget_manager = { get_model: async (id) => models.get(id) };
  }
  get(name) { return this.values[name]; }
  set(name, value) { this.values[name] = value; }
  on(event, listener) { (this.listeners[event] ??= []).push(listener); }
  off(event, listener) { this.listeners[event] = (this.listeners[event] ?? []).filter((one) => one !== listener); }
  emit(event, ...told) { return Promise.all((this.listeners[event] ?? []).map((listener) => listener(...told))); }
  change(name, value) { this.set(name, value); return this.emit(`change:${name}`); }
  ask(type, ...data) { return this.emit("msg:custom", { type, data }, []); }
  save_changes() {}
  send_sync_message() {} // voxels stay here: a notebook's kernel would have them back
  send(message) { this.emit(message.event, message.data); }
}

function volume(id, base, more) {
  const url = `${base}${id}.nii`;
  const model = new Model({ id, url, name: url, path: {}, paired_img_path: {}, colormap: "gray", colormap_label: null,
    opacity: 1, frame_4d: 0, colorbar_visible: false, colormap_negative: "", colormap_type: 0, colormap_invert: false,
    modulation_image: null, modulate_alpha: 0, ...more });
  models.set(id, model);
  return model;
}

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  made.textContent = text;
  made.append(...children);
  return made;
}

async function fetched(path) {
  const answer = await fetch(path);
  const content = await answer.json().catch(() => ({ error: `the viewer answered ${answer.status}` }));
  if (content.error) throw new Error(content.error);
  return content;
}

function listCases(cases, current) {
  part("cases").hidden = cases.length < 2;
  for (const [index, one] of cases.entries()) {
    const link = element("a", one.name, element("small", one.note ?? ""));
    link.href = `?case=${index}`;
    if (index === current) link.setAttribute("aria-current", "page");
    part("list").append(element("li", "", link));
  }
  part("list").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  part("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const item of part("list").children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
  });
}

function tell(shown) {
  const cells = [element("th", "structure"), ...shown.maps.map((name) => element("th", `${name} (${shown.unit})`))];
  part("legend").querySelector("tr").append(...cells);
  for (const cell of cells) cell.scope = "col";
  for (const row of shown.legend) {
    const mark = element("span", "");
    mark.className = "mark";
    mark.style.background = `rgb(${row.colour})`;
    const name = element("th", "", mark, row.name);
    name.scope = "row";
    part("legend").querySelector("tbody").append(element("tr", "", name, ...row.sizes.map((size) => element("td", size))));
  }
  part("legend").hidden = !shown.legend.length;
}

async function draw(shown, base) {
  const lut = [0, 0, 0, 0, ...shown.legend.flatMap((row) => [...row.colour, 255])];
  const labels = ["", ...shown.legend.map((row) => row.name)];
  const images = shown.images.map((one, index) =>
    volume(`image${index}`, base, { cal_min: one.low, cal_max: one.high }));
  const maps = shown.maps.map((_, index) =>
    volume(`map${index}`, base, { colormap_label: { lut, min: 0, max: labels.length - 1, labels } }));
  const viewer = new Model({
    opts: { isRadiologicalConvention: shown.layout === 3, sliceType: shown.layout, multiplanarForceRender: false,
      backColor: [0, 0, 0, 1], crosshairColor: [0.9, 0.6, 0, 0.9], crosshairWidth: 0.4, sagittalNoseLeft: true, dragAndDropEnabled: false,
      isOrientCube: true, isOrientationTextVisible: shown.unit !== "pixels", logLevel: "error", multiplanarShowRender: 2, fontMinPx: 12 },
    height: 560, volumes: ["image0", ...maps.map((one) => one.get("id"))].map((id) => `IPY_MODEL_${id}`), meshes: [],
    background_masks_overlays: 0, draw_lut: null, draw_opacity: 0.8, draw_fill_overwrites: true, graph: null,
    scene: null, overlay_outline_width: 0, overlay_alpha_shader: 1,
  });
  viewer.on("location_change", (place) => {
    const [value, ...found] = place.values.map((one) => one.value);
    const names = found.map((number, index) => `${shown.maps[index]}: ${labels[number] || "background"}`);
    const mm = [...place.mm].slice(0, 3).map((one) => one.toFixed(1)).join(", ");
    part("place").textContent = [...(shown.unit === "pixels" ? [] : [`${mm} mm (RAS)`]), `value ${Number(value.toPrecision(4))}`, ...names].join(" · ");
  });
  await niivue.initialize({ model: viewer });
  await niivue.render({ model: viewer, el: part("scan") });
  part("scan").querySelector("canvas").setAttribute("aria-label", `Slices of ${shown.name}`);
  part("scan").querySelector("canvas").setAttribute("role", "img");
  return { viewer, images, maps };
}

function control(shown, { viewer, images, maps }) {
  const opacity = () => {
    for (const [index, box] of part("maps").querySelectorAll("input").entries())
      maps[index].change("opacity", box.checked ? part("opacity").value / 100 : 0);
  };
  for (const [index, map] of shown.maps.entries()) {
    const box = element("input", "");
    Object.assign(box, { type: "checkbox", checked: index === shown.maps.length - 1 });
    box.addEventListener("change", opacity);
    part("maps").append(element("label", "", box, ` ${map}`));
  }
  part("maps").hidden = part("opaque").hidden = !maps.length;
  part("opacity").addEventListener("input", opacity);
  opacity();
  part("channel").append(...images.map((_, index) => new Option(shown.images[index].name, index)));
  part("channel").parentElement.hidden = images.length < 2;
  part("channel").addEventListener("change", (event) => {
    const ids = [`image${event.target.value}`, ...maps.map((one) => one.get("id"))];
    viewer.change("volumes", ids.map((id) => `IPY_MODEL_${id}`)).then(opacity);
  });
  part("layout").parentElement.hidden = shown.layout !== 3;
  part("layout").addEventListener("change", async (event) => {
    await viewer.change("opts", { ...viewer.get("opts"), sliceType: Number(event.target.value) });
    viewer.ask("draw_scene");
  });
  slide(viewer, images[0].get("dims_ras"), shown);
  part("controls").hidden = false;
  part("hint").hidden = shown.layout !== 3;
}

function slide(viewer, dims, shown) {
  const sliders = [...part("sliders").querySelectorAll("input")];
  const say = () => sliders.forEach((one) => { one.nextElementSibling.value = `${one.value} / ${one.max}`; });
  for (const [axis, slider] of sliders.entries()) {
    slider.max = dims[axis + 1];
    slider.parentElement.hidden = dims[axis + 1] < 2 || shown.layout !== 3;
    slider.addEventListener("input", async () => {
      say();
      await viewer.change("scene", { crosshairPos: sliders.map((one) => (one.value - 0.5) / one.max) });
      viewer.ask("move_crosshair_in_vox", 0, 0, 0); // which draws, and tells where it is
    });
  }
  viewer.on("location_change", (place) => {
    sliders.forEach((one, axis) => { one.value = Math.round(place.frac[axis] * one.max + 0.5); });
    say();
  });
  sliders.forEach((one, axis) => { one.value = Math.round(shown.place[axis] * one.max + 0.5); });
  sliders[0].dispatchEvent(new Event("input"));
  part("sliders").hidden = shown.layout !== 3;
}

async function main() {
  const { title, report, cases } = await fetched("cases.json");
  const current = Number(new URLSearchParams(location.search).get("case") ?? 0);
  document.title = `${cases[current]?.name ?? title} · Models Genesis`;
  part("title").textContent = title;
  part("report").hidden = !report;
  listCases(cases, current);
  if (!cases.length) {
    part("name").textContent = "No scans to show";
    return;
  }
  part("name").textContent = cases[current]?.name ?? "";
  part("name").hidden = cases.length === 1;
  part("message").textContent = "Reading the scan …";
  const shown = await fetched(`case/${current}.json`);
  tell(shown);
  control(shown, await draw(shown, `case/${current}/`));
  part("message").textContent = shown.remarks.join(" ");
  document.body.dataset.drawn = "true";
}

main().catch((problem) => {
  part("message").setAttribute("role", "alert");
  part("message").textContent = problem.message;
});
