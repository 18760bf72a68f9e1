"use strict";
const root = document.documentElement;
const button = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
}

function nameTheme() {
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", isDark() ? "Switch to the light theme" : "Switch to the dark theme");
}

button.hidden = false;
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
dark.addEventListener("change", nameTheme);
nameTheme();

for (const slides of document.querySelectorAll("[data-slides]")) {
  const slider = slides.querySelector("input");
  const planes = [...slides.querySelectorAll(".plane")];
  const state = slides.querySelector("[data-state]");
  const show = (place) => {
    const names = planes.map((plane) => {
      const pictures = [...plane.querySelectorAll("img")];
      const shown = Math.min(place, pictures.length - 1);
      pictures.forEach((picture, index) => { picture.hidden = index !== shown; });
      return pictures[shown].dataset.name;
    });
    const distinct = [...new Set(names)];
    const once = state && distinct.length === 1;  // said beside the slider, not by each plane
    planes.forEach((plane, index) => {
      const label = plane.querySelector("[data-label]");
      if (label) label.textContent = once ? "" : names[index];
    });
    if (state) state.textContent = once ? names[0] : "";
    if (slider) slider.setAttribute("aria-valuetext", distinct.join(", "));
  };
  if (slider) {
    slider.parentElement.hidden = false;
    slider.addEventListener("input", () => show(Number(slider.value)));
  }
  show(slider ? Number(slider.value) : 0);
}
