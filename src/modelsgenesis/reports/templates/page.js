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
  const show = (place) => {
    const names = planes.map((plane) => {
      const pictures = [...plane.querySelectorAll("img")];
      const shown = Math.min(place, pictures.length - 1);
      pictures.forEach((picture, index) => { picture.hidden = index !== shown; });
      const name = pictures[shown].dataset.name;
      plane.querySelector("[data-label]").textContent = name;
      return name;
    });
    if (slider) slider.setAttribute("aria-valuetext", [...new Set(names)].join(", "));
  };
  if (slider) {
    slider.parentElement.hidden = false;
    slider.addEventListener("input", () => show(Number(slider.value)));
  }
  show(slider ? Number(slider.value) : 0);
}
